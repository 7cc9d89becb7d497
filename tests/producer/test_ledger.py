"""The ledger: where each run stands, cheaply."""

import dataclasses
import time
from collections.abc import Callable

import pytest
import redis

from producer.errors import LedgerError
from producer.job import Job
from producer.ledger import Failure, Ledger, RunStatus, done_key, failed_key, run_key
from producer.queue import JobQueue

RUNNING = RunStatus(
    run="r",
    output="/out",
    jobs=12,
    images=10,
    enqueued=12,
    present=0,
    done=5,
    failed=1,
    created=100.0,
    first_done=110.0,
    last_done=118.0,
)


@pytest.fixture
def ledger(client: redis.Redis) -> Ledger:
    return Ledger(client)


@pytest.fixture
def enter(ledger: Ledger) -> Callable[..., None]:
    def enter(run: str, output: str = "/out", digest: str = "d", images: int = 1) -> None:
        ledger.open(run, output=output, digest=digest, jobs=images, images=images, common={"width": 64})

    return enter


def test_a_new_run_has_nothing_done(ledger, enter):
    before = time.time()
    enter("r", images=3)
    status = ledger.status("r")
    assert (status.run, status.output, status.jobs, status.images) == ("r", "/out", 3, 3)
    assert (status.enqueued, status.present, status.done, status.failed, status.left) == (0, 0, 0, 0, 3)
    assert not status.finished
    assert (status.first_done, status.images_per_s, status.eta_s) == (None, None, None)
    assert before <= status.created <= time.time()
    assert ledger.settings("r") == ("/out", {"width": 64})


def test_a_run_entered_again_keeps_its_counts_and_its_creation(client, ledger, enter):
    enter("r")
    client.hset(run_key("r"), "done", 1)
    before = ledger.status("r")
    enter("r")
    assert ledger.status("r") == before
    assert before.done == 1


@pytest.mark.parametrize(
    ("other", "problem"), [({"output": "/elsewhere"}, "at /out"), ({"digest": "e"}, "with other jobs")]
)
def test_a_name_that_stands_for_another_run_is_refused_and_keeps_it(ledger, enter, other, problem):
    enter("r")
    before = ledger.status("r")
    with pytest.raises(
        LedgerError, match=f"run 'r' is known to this Redis {problem}: name this run otherwise with --run"
    ):
        enter("r", **other)
    assert ledger.status("r") == before


def test_runs_are_listed_the_newest_first(ledger, enter):
    for run in ("b", "a", "c"):
        enter(run)
    enter("b")
    assert [status.run for status in ledger.runs()] == ["c", "a", "b"]


def test_a_run_whose_keys_were_deleted_is_not_listed(client, ledger, enter):
    enter("a")
    enter("b")
    client.delete(run_key("a"))
    assert [status.run for status in ledger.runs()] == ["b"]


def test_an_unknown_run_is_told(ledger):
    with pytest.raises(LedgerError, match="no run 'x' in this Redis; `promptmill status` lists those there are"):
        ledger.status("x")
    assert ledger.settings("x") is None
    assert list(ledger.failures("x")) == []


def test_the_rate_is_from_the_first_image_to_the_last_and_the_rest_takes_as_long():
    assert RUNNING.left == 4
    assert RUNNING.images_per_s == 0.5
    assert RUNNING.eta_s == 8.0


@pytest.mark.parametrize(
    "change",
    [{"done": 0, "first_done": None, "last_done": None}, {"done": 1, "last_done": 110.0}, {"last_done": 110.0}],
    ids=["none yet", "one", "all at one moment"],
)
def test_there_is_no_rate_before_there_are_two_images(change):
    status = dataclasses.replace(RUNNING, **change)
    assert (status.images_per_s, status.eta_s) == (None, None)


def test_a_run_is_finished_when_each_image_is_done_or_failed():
    assert not RUNNING.finished
    assert dataclasses.replace(RUNNING, done=9).finished


def test_reasons_of_failures_survive_any_text(client, ledger, enter):
    enter("r", images=2)
    jobs = [Job(prompt=f"{n}", width=64, height=64) for n in range(2)]
    queue = JobQueue(client, "w")
    queue.enqueue("r", 0, 2, list(enumerate(jobs)))
    _, second = queue.claim(jobs[0].shape, 2)
    queue.failed(second, 'too "big"\n苹果')
    assert list(ledger.failures("r")) == [Failure(1, jobs[1].id, 'too "big"\n苹果')]


def test_ten_million_jobs_cost_two_megabytes(client, ledger, enter):
    enter("r", images=10_000_000)
    client.setbit(done_key("r"), 9_999_999, 1)
    client.setbit(failed_key("r"), 9_999_999, 1)
    size = sum(client.memory_usage(key) for key in client.scan_iter("promptmill:*"))
    assert size < 3_200_000
