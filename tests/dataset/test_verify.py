"""What `verify` finds: one fault of each kind, and nothing where there is none."""

import io
import json
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from promptmill.dataset.finish import UnfinishedError, finish
from promptmill.dataset.verify import verify
from promptmill.producer.layout import image_name
from promptmill.producer.outputs.open import open_output
from tests.dataset.conftest import FAILED, Run
from tests.fake_gcs import FakeGcs


@pytest.fixture
def dataset(run: Run) -> Path:
    finish(run.output, run.plan, {FAILED: "the dog ate it"}, shard_size=4)
    return run.folder


def found(run: Run) -> set[str]:
    return {finding.name for finding in verify(run.output)}


def missing(run: Run) -> str:
    """The failed job's image, which is not there."""
    return image_name(next(run.plan.since(FAILED)).id)


def test_a_whole_dataset_has_no_findings(run: Run, dataset: Path):
    assert found(run) == set()


def every_file(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("seed", range(12))
def test_one_flipped_bit_anywhere_is_found(run: Run, dataset: Path, seed: int):
    draw = random.Random(seed)
    for name in every_file(dataset):
        path = dataset / name
        before = path.read_bytes()
        at = draw.randrange(len(before))
        path.write_bytes(before[:at] + bytes([before[at] ^ 1 << draw.randrange(8)]) + before[at + 1 :])
        assert found(run), f"{name}: byte {at}"
        path.write_bytes(before)


def _cut_at_a_member(folder: Path) -> str:
    """As a copy that stopped between two members: readers see a shorter tar and no error."""
    path = folder / "data" / "00000.tar"
    with tarfile.open(path) as tar:
        members = [(member, tar.extractfile(member).read()) for member in tar.getmembers()[:-3]]  # type: ignore[union-attr]
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        for member, data in members:
            tar.addfile(member, io.BytesIO(data))
    path.write_bytes(whole.getvalue())
    return "data/00000.tar"


def _swap(folder: Path) -> str:
    one, other = sorted(folder.glob("images/*/*.png"))[:2]
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)
    return str(other.relative_to(folder))


def _change_a_row(folder: Path) -> str:
    file = folder / "manifest.parquet"
    table = pq.read_table(file).to_pandas()
    table.loc[3, "prompt"] = "a dog"
    table.to_parquet(file)
    return "manifest.parquet"


def _put(name: str) -> Callable[[Path], str]:
    def put(folder: Path) -> str:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(next(folder.glob("images/*/*.png")).read_bytes())
        return name

    return put


def _remove(pattern: str) -> Callable[[Path], str]:
    def remove(folder: Path) -> str:
        path = next(folder.glob(pattern))
        path.unlink()
        return str(path.relative_to(folder))

    return remove


def _truncate(pattern: str) -> Callable[[Path], str]:
    def truncate(folder: Path) -> str:
        path = next(folder.glob(pattern))
        path.write_bytes(path.read_bytes()[:-1])
        return str(path.relative_to(folder))

    return truncate


FAULTS: dict[str, Callable[[Path], str]] = {
    "a tar cut between two members": _cut_at_a_member,
    "two images swapped": _swap,
    "a manifest's row changed": _change_a_row,
    "a foreign object": _put("notes.png"),
    "an image twice": _put("images/ab/ab0123456789abcdef0123456789abcd.png"),
    "a foreign shard": _put("data/00009.tar"),
    "an absent image": _remove("images/*/*.png"),
    "an absent shard": _remove("data/00001.tar"),
    "an absent manifest": _remove("manifest.parquet"),
    "a cut image": _truncate("images/*/*.png"),
    "a cut plan": _truncate("plan/00000.jsonl.zst"),
    "a cut list of shards": _truncate("data/shards.json"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_each_kind_of_fault_is_found_by_name(run: Run, dataset: Path, fault: Callable[[Path], str]):
    assert fault(dataset) in found(run)


def test_a_run_that_is_not_packed_is_held_against_its_plan(run: Run):
    assert found(run) == {missing(run)}
    name = _swap(run.folder)
    assert name in found(run)


def test_an_unfinished_run_is_packed_only_on_request(run: Run):
    with pytest.raises(UnfinishedError, match="1 of 10 jobs have neither image nor failure"):
        finish(run.output, run.plan, {}, shard_size=4)
    assert not (run.folder / "data").exists()
    assert finish(run.output, run.plan, {}, shard_size=4, partial=True) == {"done": 9, "missing": 1}


def test_finishing_again_changes_nothing(run: Run, dataset: Path):
    before = {name: (dataset / name).stat().st_mtime_ns for name in every_file(dataset)}
    finish(run.output, run.plan, {FAILED: "the dog ate it"}, shard_size=4)
    assert {name: (dataset / name).stat().st_mtime_ns for name in every_file(dataset)} == before
    sealed = json.loads((dataset / "_SUCCESS").read_text())["sha256"]
    assert set(sealed) == {"run.json", "plan/00000.jsonl.zst", "manifest.parquet", "data/shards.json"}


def test_a_run_in_a_bucket_is_packed_and_verified(run: Run, fake_gcs: FakeGcs, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake_gcs.url)
    bucket = open_output(f"{fake_gcs.create_bucket('datasets')}/cats")
    for name in every_file(run.folder):
        bucket.put_once(name, (run.folder / name).read_bytes())
    finish(bucket, run.plan, {FAILED: "the dog ate it"}, shard_size=4)
    assert list(verify(bucket)) == []
    bucket.put_once("notes.txt", b"mine")
    assert [finding.name for finding in verify(bucket)] == ["notes.txt"]
