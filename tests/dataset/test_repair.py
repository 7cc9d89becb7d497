"""What `repair` puts back: the bytes that were there, and nothing deleted."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from promptmill.dataset.findings import LedgerFacts
from promptmill.dataset.finish import finish
from promptmill.dataset.options import PackOptions
from promptmill.dataset.repair import Step, repair
from promptmill.dataset.verify import verify
from promptmill.producer.layout import image_name
from promptmill.producer.outputs.open import open_output
from promptmill.producer.outputs.output import Output
from promptmill.producer.plan import Plan
from promptmill.worker.encode import encode
from tests.dataset.conftest import FAILED, Run, pixels
from tests.dataset.faults import FAULTS, Fault, every_file
from tests.fake_gcs import FakeGcs


class Renderer:
    """Renders as the run was rendered; `offset` is what other hardware would make of it."""

    def __init__(self, output: Output, offset: int = 0) -> None:
        self.output, self.offset, self.asked = output, offset, list[int]()

    def __call__(self, plan: Plan, indexes: Sequence[int]) -> Mapping[int, str]:
        self.asked += indexes
        for planned in plan.at(indexes):
            job = plan.whole(planned)
            data = encode(pixels(job.seed) + self.offset, job, encoding=plan.encoding)
            self.output.put_once(plan.image_name(planned.id), data, content_type=plan.encoding.row.content_type)
        return {}


@pytest.fixture
def dataset(run: Run) -> Path:
    finish(run.output, run.plan, {FAILED: "the dog ate it"}, shard_size=4)
    return run.folder


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in every_file(folder)}


def repaired(run: Run, accept: bool = False) -> list[Step]:
    return list(repair(run.output, Renderer(run.output), accept=accept))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_each_kind_of_fault_is_mended_to_the_same_bytes(run: Run, dataset: Path, fault: Fault, seed: int):
    before = contents(dataset)
    fault(dataset, random.Random(seed))
    steps = repaired(run)
    assert [step for step in steps if step.action == "left"] == []
    assert steps
    assert contents(dataset) == before
    assert list(verify(run.output)) == []


@pytest.mark.parametrize("form", ["webdataset", "parquet", "imagefolder"])
def test_each_format_is_mended_to_the_same_bytes(run: Run, form: str):
    finish(run.output, run.plan, {FAILED: "the dog ate it"}, options=PackOptions(format=form, shard_size=4))
    before = contents(run.folder)
    draw = random.Random(0)
    for name in draw.sample([name for name in before if not name.startswith(("plan/", "manifest", "_S"))], 12):
        (run.folder / name).write_bytes(before[name][: draw.randrange(len(before[name]))])
    steps = repaired(run)
    assert [step for step in steps if step.action == "left"] == []
    assert contents(run.folder) == before
    assert list(verify(run.output)) == []


def test_without_a_seal_nothing_of_the_runs_own_is_taken_for_foreign(run: Run, dataset: Path):
    before = contents(dataset)
    (dataset / "_SUCCESS").unlink()
    assert [(step.name, step.action) for step in repaired(run)] == [("_SUCCESS", "rebuilt")]
    assert contents(dataset) == before


def test_there_is_nothing_to_do_for_a_whole_dataset(run: Run, dataset: Path):
    before = {name: (dataset / name).stat().st_mtime_ns for name in every_file(dataset)}
    assert repaired(run) == []
    assert {name: (dataset / name).stat().st_mtime_ns for name in every_file(dataset)} == before


def test_what_was_in_the_way_is_set_aside_under_its_name(run: Run, dataset: Path):
    name = image_name(next(run.plan.since(3)).id)
    (dataset / name).write_bytes(b"broken")
    (dataset / "notes.txt").write_text("mine")
    steps = {step.name: step for step in repaired(run)}
    assert (steps["notes.txt"].action, steps[name].action) == ("set aside", "restored")
    assert (dataset / "set-aside" / "0001" / name).read_bytes() == b"broken"
    assert (dataset / "set-aside" / "0001" / "notes.txt").read_text() == "mine"
    (dataset / "notes.txt").write_text("mine again")
    repaired(run)
    assert (dataset / "set-aside" / "0002" / "notes.txt").read_text() == "mine again"


def test_an_image_is_rendered_only_where_no_shard_has_it(run: Run, dataset: Path):
    names = {index: image_name(next(run.plan.since(index)).id) for index in (0, 9)}
    for name in names.values():
        (dataset / name).unlink()
    (dataset / "data" / "00002.tar").unlink()
    render = Renderer(run.output)
    steps = {step.name: step.action for step in repair(run.output, render)}
    assert steps == {names[0]: "restored", names[9]: "rendered", "data/00002.tar": "rebuilt"}
    assert render.asked == [9]


def test_an_image_that_is_damaged_within_its_shard_is_not_taken_from_there(run: Run, dataset: Path):
    name = image_name(next(run.plan.since(9)).id)
    image = (dataset / name).read_bytes()
    (dataset / name).unlink()
    shard = (dataset / "data" / "00002.tar").read_bytes()
    (dataset / "data" / "00002.tar").write_bytes(shard.replace(image, image[:-1] + b"x"))
    steps = {step.name: step.action for step in repair(run.output, Renderer(run.output))}
    assert steps == {name: "rendered", "data/00002.tar": "rebuilt"}
    assert (dataset / name).read_bytes() == image


def test_an_image_that_comes_out_otherwise_is_told_and_packed_only_when_accepted(run: Run, dataset: Path):
    name = image_name(next(run.plan.since(9)).id)
    before = contents(dataset)
    for gone in (name, "data/00002.tar"):
        (dataset / gone).unlink()
    steps = {step.name: step for step in repair(run.output, Renderer(run.output, offset=1))}
    assert steps[name].action == steps["data/00002.tar"].action == "left"
    assert "with other bytes than before" in steps[name].detail
    accepted = list(repair(run.output, Renderer(run.output, offset=1), accept=True))
    assert [step for step in accepted if step.action == "left"] == []
    assert list(verify(run.output)) == []
    after = contents(dataset)
    assert {name for name in before if before[name] != after[name]} == {
        *(name, "data/00002.tar", "data/shards.json", "manifest.parquet", "_SUCCESS"),
        *("packing/00002.tar.json", "packing/manifest.json", "croissant.json"),
    }


def test_a_run_that_was_packed_with_holes_is_left_so_unless_accepted(run: Run):
    finish(run.output, run.plan, {}, shard_size=4, partial=True)
    late = next(run.plan.since(FAILED))
    Renderer(run.output)(run.plan, [FAILED])
    (step,) = repaired(run)
    assert (step.name, step.action) == (image_name(late.id), "left")
    assert "--accept packs it anew with it" in step.detail
    repaired(run, accept=True)
    assert list(verify(run.output)) == []
    assert not (run.folder / "failures.jsonl").exists()


def test_a_run_that_is_not_packed_gets_its_images_and_nothing_else(run: Run):
    before = contents(run.folder)
    first = next(iter(run.plan))
    (run.folder / image_name(first.id)).write_bytes(b"")
    ledger = LedgerFacts(run.plan.digest, b"", {FAILED: "the dog ate it"})
    steps = list(repair(run.output, Renderer(run.output), ledger=ledger))
    assert [(step.action, step.index) for step in steps] == [("rendered", 0)]
    assert contents(run.folder) == before


def test_failed_jobs_are_known_when_redis_is_not(run: Run, dataset: Path):
    assert (dataset / "failures.jsonl").read_text() == (
        f'{{"id":"{next(run.plan.since(FAILED)).id}","index":4,"reason":"the dog ate it","state":"failed"}}\n'
    )
    before = contents(dataset)
    (dataset / "manifest.parquet").unlink()
    assert [(step.name, step.action) for step in repaired(run)] == [("manifest.parquet", "rebuilt")]
    assert contents(dataset) == before


def test_what_could_not_be_rendered_is_left_with_its_reason(run: Run, dataset: Path):
    (dataset / image_name(next(run.plan.since(9)).id)).unlink()
    (dataset / "data" / "00002.tar").unlink()
    steps = list(repair(run.output, lambda plan, indexes: dict.fromkeys(indexes, "no such model")))
    assert [(step.action, step.index) for step in steps] == [("left", 9), ("left", None)]
    assert steps[0].detail == "could not be rendered: no such model"


def test_a_run_in_a_bucket_is_repaired(run: Run, fake_gcs: FakeGcs, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake_gcs.url)
    bucket = open_output(f"{fake_gcs.create_bucket('repairs')}/cats")
    for name in every_file(run.folder):
        bucket.put_once(name, (run.folder / name).read_bytes())
    finish(bucket, run.plan, {FAILED: "the dog ate it"}, shard_size=4)
    before = {name: bucket.get(name) for name in bucket.list()}
    image = image_name(next(run.plan.since(3)).id)
    for name in (image, "data/00001.tar", "plan/00000.jsonl.zst", "run.json"):
        bucket.put_once(name, before[name][:-1], broken=lambda existing: True)
    bucket.put_once("images/notes.txt", b"mine")
    steps = {step.name: step.action for step in repair(bucket, Renderer(bucket))}
    assert "left" not in steps.values()
    assert {name: bucket.get(name) for name in bucket.list() if not name.startswith("set-aside/")} == before
    assert bucket.get("set-aside/0001/images/notes.txt") == b"mine"
    assert list(verify(bucket)) == []
    (listed,) = bucket.scan(image)
    assert listed.metadata["job_id"] == next(run.plan.since(3)).id
