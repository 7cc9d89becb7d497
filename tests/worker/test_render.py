"""The end of a job's way: encode, upload, settle. On a real Redis and a real folder."""

import dataclasses
import io
import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from PIL import Image

from promptmill.dataset.images import look_at, texts_of
from promptmill.producer.image_formats import Encoding, format_of, open_image
from promptmill.producer.job import Job
from promptmill.producer.layout import Look, image_name, look_inside
from promptmill.producer.outputs.open import open_output
from promptmill.producer.outputs.output import Output, OutputRefused, OutputUnavailable
from promptmill.producer.queue.ledger import Ledger
from promptmill.producer.queue.queue import Claim, JobQueue
from promptmill.worker.app import make_app
from promptmill.worker.credentials import load_signer
from promptmill.worker.encode import a1111_parameters, encode_png, job_id_inside
from promptmill.worker.events import JobEvents
from promptmill.worker.observers import Observer
from promptmill.worker.output_trouble import OutputTrouble
from promptmill.worker.render import Finisher, Rendered, _metadata
from promptmill.worker.self_report import SelfReport
from promptmill.worker.settings import WorkerSettings
from tests.entries import as_entries
from tests.worker.test_credentials import settings_with, write_certificate

PIXELS = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


@pytest.fixture
def bench(client: redis.Redis, redis_url: str, tmp_path: Path) -> Iterator["Bench"]:
    bench = Bench(client, redis_url, tmp_path)
    yield bench
    bench.events.close()


class Bench:
    """A run of some jobs in a real queue, and a Finisher for them."""

    def __init__(self, client: redis.Redis, url: str, folder: Path) -> None:
        self.client, self.ledger, self.queue = client, Ledger(client), JobQueue(client, "bench")
        self.output: Output = open_output(str(folder)).child("r")
        self.events = JobEvents(make_app(WorkerSettings(broker=url)), "bench@here")
        self.report = SelfReport("bench@here", is_busy=lambda: False)
        self.trouble = OutputTrouble(self.report)
        self.give_up = threading.Event()
        self.revoked: set[str] = set()
        self.folder = folder

    def claims(self, count: int, encoding: str = "", **fields: object) -> list[Claim]:
        jobs = [Job(prompt=f"p{n}", seed=n, width=64, height=64, **fields) for n in range(count)]  # type: ignore[arg-type]
        self.ledger.open(
            "r", output=str(self.folder), digest="d", jobs=count, images=count, common={}, encoding=encoding
        )
        self.queue.enqueue("r", 0, count, as_entries(enumerate(jobs)))
        return self.queue.claim(jobs[0].shape, count)

    def finisher(self, output: Output | None = None, settings: WorkerSettings | None = None) -> Finisher:
        return Finisher(
            self.queue,
            self.events,
            self.trouble,
            is_revoked=lambda claim: claim.job.id in self.revoked,
            give_up=self.give_up,
            settings=settings or WorkerSettings(),
            open_run=lambda url, run: output or self.output,
        )

    def finish(self, claim: Claim, fault: str | None = None, output: Output | None = None) -> bool:
        return self.finisher(output).finish(
            Rendered(claim, PIXELS, fault, notes={"prompt_cut": {"prompt": " and so on"}})
        )

    def reasons(self) -> dict[int, str]:
        return {failure.index: failure.reason for failure in self.ledger.failures("r")}

    def image(self, claim: Claim) -> bytes:
        return self.output.get(image_name(claim.job.id, Encoding.parse(claim.encoding).extension))


class Faulty:
    """A real output before which something is wrong for a while."""

    def __init__(self, output: Output, fault: Callable[[], None]) -> None:
        self._output, self._fault, self.url = output, fault, output.url

    def put_once(self, *args: object, **kwargs: object) -> object:
        self._fault()
        return self._output.put_once(*args, **kwargs)  # type: ignore[arg-type]


def test_a_finished_job_has_its_image_and_is_done(bench):
    (claim,) = bench.claims(1)
    assert bench.finish(claim)
    assert job_id_inside(bench.image(claim)) == claim.job.id
    with Image.open(io.BytesIO(bench.image(claim))) as image:
        assert json.loads(image.info["promptmill"])["notes"] == {"prompt_cut": {"prompt": " and so on"}}
    assert (bench.ledger.status("r").done, bench.ledger.status("r").truncated) == (1, 1)


@pytest.mark.parametrize(("marks", "expected"), [("xmp", ("xmp",)), ("none", ()), ("xmp,c2pa", ("xmp", "c2pa"))])
def test_an_image_has_the_marks_that_were_asked_for(bench, tmp_path, marks, expected):
    settings = settings_with(write_certificate(tmp_path), marks=marks)
    finisher = bench.finisher(settings=settings)
    finisher.signer = load_signer(settings)
    (claim,) = bench.claims(1)
    assert finisher.finish(Rendered(claim, PIXELS))
    assert look_at(bench.image(claim)).marks == expected


@pytest.mark.parametrize("encoding", ["webp", "webp:80", "jpeg", "jpeg:70", "jxl", "jxl:90"])
def test_an_image_is_written_as_its_run_asks_with_all_that_it_says(bench, tmp_path, encoding):
    settings = settings_with(write_certificate(tmp_path), marks="xmp,c2pa")
    finisher = bench.finisher(settings=settings)
    finisher.signer = load_signer(settings)
    (claim,) = bench.claims(1, encoding)
    assert finisher.finish(Rendered(claim, PIXELS, notes={"prompt_cut": {"prompt": " and so on"}}))
    data = bench.image(claim)
    facts = look_at(data, decode=True)
    assert format_of(data) is Encoding.parse(encoding).row
    assert (facts.marks, facts.notes) == (("xmp", "c2pa"), {"prompt_cut": {"prompt": " and so on"}})
    assert (
        Job.from_fields({name: facts.record[name] for name in facts.record if name not in ("id", "notes")}) == claim.job
    )
    with open_image(data, Image.open) as image:
        assert texts_of(image)["parameters"] == a1111_parameters(claim.job)
        close = np.abs(np.asarray(image).astype(int) - PIXELS).mean()
    assert close < 60 if ":" in encoding or encoding == "jpeg" else close == 0
    assert finisher.finish(Rendered(claim, PIXELS))  # by another worker: adopted


def test_a_worker_without_the_package_gives_the_job_back(bench, monkeypatch):
    (claim,) = bench.claims(1, "jxl")
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    assert not bench.finish(claim)
    assert bench.reasons() == {} and bench.trouble.to_pass_over() == [claim.output]
    (told,) = bench.report.now().problems.values()
    assert told.startswith("pillow_jxl is not installed here: pip install 'promptmill[jxl]'")
    assert [again.index for again in JobQueue(bench.client, "another").claim(claim.shape, 1)] == [0]


def test_who_rendered_an_image_and_in_how_long_lies_beside_its_bytes(bench):
    (claim,) = bench.claims(1)
    told = _metadata(Rendered(claim, PIXELS), "promptmill-1@here")
    assert told["worker"] == "promptmill-1@here" and float(told["render_s"]) >= 0
    assert b"promptmill-1@here" not in encode_png(PIXELS, claim.job)


def test_nan_fails_its_job_and_the_neighbours_land(bench):
    claims = bench.claims(3)
    for claim in claims:
        bench.finish(claim, fault="NaN" if claim.index == 1 else None)
    assert bench.ledger.status("r").done == 2
    assert list(bench.reasons()) == [1]
    assert "NaN" in bench.reasons()[1]
    assert not bench.output.exists(image_name(claims[1].job.id))


def test_a_revoked_job_is_not_written(bench):
    claims = bench.claims(2)
    bench.revoked.add(claims[0].job.id)
    for claim in claims:
        bench.finish(claim)
    assert bench.reasons() == {0: "revoked"}
    assert not bench.output.exists(image_name(claims[0].job.id))


def test_a_name_taken_by_something_else_fails_the_job_and_is_left_alone(bench):
    (claim,) = bench.claims(1)
    bench.output.put_once(image_name(claim.job.id), b"somebody else's")
    assert not bench.finish(claim)
    assert list(bench.reasons()) == [0]
    assert bench.image(claim) == b"somebody else's"


@pytest.mark.parametrize("left", [0, 3, 100, -1])
def test_what_is_left_of_an_image_is_replaced(bench, left):
    (claim,) = bench.claims(1)
    bench.output.put_once(image_name(claim.job.id), encode_png(PIXELS, claim.job)[:left])
    assert bench.finish(claim)
    assert job_id_inside(bench.image(claim)) == claim.job.id
    assert bench.ledger.status("r").done == 1


def test_another_jobs_image_of_the_name_fails_the_job_and_is_left_alone(bench):
    claim, other = bench.claims(2)
    theirs = encode_png(PIXELS, other.job)
    bench.output.put_once(image_name(claim.job.id), theirs)
    assert not bench.finish(claim)
    assert "taken by something else" in bench.reasons()[0]
    assert bench.image(claim) == theirs


def test_the_other_workers_image_of_the_job_is_adopted(bench):
    (claim,) = bench.claims(1)
    theirs = encode_png(255 - PIXELS, claim.job)
    bench.output.put_once(image_name(claim.job.id), theirs)
    assert bench.finish(claim)
    assert bench.image(claim) == theirs
    assert bench.ledger.status("r").done == 1


@pytest.mark.parametrize("missing", [1, 12, 20])
def test_an_image_whose_last_bytes_are_missing_is_replaced_though_pillow_shows_it(bench, missing):
    """A submitter takes it for cut off: adopted by workers, it would be rendered again for ever."""
    (claim,) = bench.claims(1)
    bench.output.put_once(image_name(claim.job.id), encode_png(PIXELS, claim.job)[:-missing])
    assert bench.finish(claim)
    there = bench.image(claim)
    assert look_inside(claim.job.id, len(there), lambda start, length: there[start:][:length]) is Look.OURS


def test_an_output_that_is_away_is_waited_for(bench):
    (claim,) = bench.claims(1)
    answers = iter([OutputUnavailable("503"), OutputUnavailable("503"), None])

    def fault() -> None:
        if error := next(answers):
            raise error

    assert bench.finish(claim, output=Faulty(bench.output, fault))
    assert bench.reasons() == {}
    assert bench.image(claim)


def test_a_worker_that_must_stop_gives_back_what_it_cannot_write(bench):
    (claim,) = bench.claims(1)

    def fault() -> None:
        bench.give_up.set()
        raise OutputUnavailable("503")

    assert not bench.finish(claim, output=Faulty(bench.output, fault))
    (again,) = bench.queue.claim(claim.shape, 1)
    assert (again.index, again.deliveries) == (0, 1), "it was not the job's fault"


def test_an_output_that_refuses_this_host_gives_the_job_back_and_is_passed_over(bench):
    claims = bench.claims(2)
    refuse = True

    def fault() -> None:
        if refuse:
            raise OutputRefused("cannot write /out/a: Read-only file system")

    for claim in claims:
        assert not bench.finish(claim, output=Faulty(bench.output, fault))
    assert bench.reasons() == {}
    url = str(bench.folder)
    assert bench.trouble.to_pass_over() == [url]
    assert "Read-only file system" in bench.report.now().problems[url]
    shape = claims[0].shape
    assert bench.queue.claimable(pass_over=bench.trouble.to_pass_over()) == []
    assert bench.queue.claim(shape, 2, pass_over=bench.trouble.to_pass_over()) == []
    again = bench.queue.claim(shape, 2)
    assert [claim.deliveries for claim in again] == [1, 1], "it was not the jobs' fault"
    refuse = False
    assert bench.finish(again[0], output=Faulty(bench.output, fault))
    assert bench.trouble.to_pass_over() == []
    assert bench.report.now().problems == {}


def test_an_object_that_the_output_refuses_while_it_takes_others_is_failed_with_the_reason(bench):
    bad, *good = bench.claims(4)

    def forbidden() -> None:
        raise OutputRefused("cannot write gs://b/bad: 403")

    refusing = Faulty(bench.output, forbidden)
    assert not bench.finish(bad, output=refusing)
    tries = 1
    for claim in good:
        assert bench.finish(claim)
    while claims := bench.queue.claim(bad.shape, 1):
        assert not bench.finish(claims[0], output=refusing)
        tries += 1
    assert tries == 4, "the first time it may have been the output"
    assert bench.reasons() == {0: "the output takes other images, and not this one: cannot write gs://b/bad: 403"}
    assert bench.trouble.to_pass_over() == []


def test_a_job_that_was_refused_twice_goes_behind_others(bench):
    bad, other = bench.claims(2)
    bench.queue.release([other])

    def forbidden() -> None:
        raise OutputRefused("cannot write gs://b/bad: 403")

    for _ in range(2):
        assert not bench.finish(bad, output=Faulty(bench.output, forbidden))
        (first,) = bench.queue.claim(bad.shape, 1)
    assert first.index == other.index, "else one bad object would keep all others waiting"
    assert bench.queue.claim(bad.shape, 1) == []


def test_an_output_that_is_away_is_a_problem_that_status_shows(bench):
    (claim,) = bench.claims(1)
    seen = []

    def fault() -> None:
        seen.append(dict(bench.report.now().problems))
        if len(seen) == 1:
            raise OutputUnavailable("cannot write /out/a: No space left on device")

    assert bench.finish(claim, output=Faulty(bench.output, fault))
    assert "No space left" in seen[1][str(bench.folder)]
    assert bench.report.now().problems == {}


def test_an_end_is_told_before_the_job_is_settled(bench):
    """Settled first, a job whose worker is killed in between would be started for ever in Flower."""
    settled = []

    class Listener(Observer):
        def _ended(self, *_: Any) -> None:
            run = bench.ledger.status("r")
            settled.append(run.done + run.failed)

        succeeded = failed = revoked = _ended  # type: ignore[assignment]

    good, bad, revoked = bench.claims(3)
    bench.events = Listener()
    bench.revoked.add(revoked.job.id)
    assert bench.finish(good) and not bench.finish(bad, fault="planted") and not bench.finish(revoked)
    assert settled == [0, 1, 2]


def test_an_unforeseen_error_is_tried_three_times_and_told(bench):
    (claim,) = bench.claims(1)

    def fault() -> None:
        raise ZeroDivisionError("planted")

    for _ in range(3):
        assert bench.reasons() == {}
        bench.finish(claim, output=Faulty(bench.output, fault))
        (claim,) = bench.queue.claim(claim.shape, 1) or (None,)
    assert bench.reasons() == {0: "ZeroDivisionError: planted"}
    assert claim is None


def test_metadata_stay_within_what_google_takes(bench):
    short, long = bench.claims(1)[0], Job(prompt="🍎" * 5000)
    assert '"prompt":"p0"' in _metadata(Rendered(short, PIXELS), "w@host")["promptmill"].replace('": "', '":"')
    assert "promptmill" not in _metadata(Rendered(dataclasses.replace(short, job=long), PIXELS), "w@host")
