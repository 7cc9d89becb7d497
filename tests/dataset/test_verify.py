"""What `verify` finds: one fault of each kind, and nothing where there is none."""

import io
import json
import random
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from promptmill.dataset.findings import LedgerFacts
from promptmill.dataset.finish import UnfinishedError, finish
from promptmill.dataset.parallel import mapped
from promptmill.dataset.seal import read_seal, write_seal
from promptmill.dataset.verify import verify
from promptmill.producer.layout import image_name
from promptmill.producer.outputs.open import open_output
from tests.dataset.conftest import FAILED, Run
from tests.dataset.faults import every_file
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
    "an absent seal": _remove("_SUCCESS"),
    "a foreign file of the plan": _put("plan/00001.jsonl.zst"),
    "a cut image": _truncate("images/*/*.png"),
    "a cut plan": _truncate("plan/00000.jsonl.zst"),
    "a cut list of shards": _truncate("data/shards.json"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_each_kind_of_fault_is_found_by_name(run: Run, dataset: Path, fault: Callable[[Path], str]):
    assert fault(dataset) in found(run)


SEEN_IN_A_LISTING = {
    *(
        "a foreign object",
        "an image twice",
        "a foreign shard",
        "an absent image",
        "an absent shard",
        "an absent manifest",
    ),
    *("an absent seal", "a foreign file of the plan", "a cut image", "a cut plan", "a cut list of shards"),
    *("a manifest's row changed", "a tar cut between two members"),
}


@pytest.mark.parametrize("name", sorted(SEEN_IN_A_LISTING))
def test_a_fast_look_finds_what_a_listing_shows(run: Run, dataset: Path, name: str):
    assert list(verify(run.output, fast=True)) == []
    assert FAULTS[name](dataset) in {finding.name for finding in verify(run.output, fast=True)}


def test_a_run_that_is_not_packed_is_held_against_its_plan(run: Run):
    assert found(run) == {missing(run)}
    name = _swap(run.folder)
    assert name in found(run)


def test_a_row_that_the_plan_does_not_have_is_found_under_a_seal_that_was_made_anew(run: Run, dataset: Path):
    table = pq.read_table(dataset / "manifest.parquet")
    prompts = table["prompt"].to_pylist()
    prompts[3] = "a dog"
    at = table.schema.get_field_index("prompt")
    pq.write_table(table.set_column(at, "prompt", [prompts]), dataset / "manifest.parquet")
    sealed = read_seal(run.output)
    (dataset / "_SUCCESS").unlink()
    write_seal(run.output, sealed.sha256)
    findings = {finding.name: finding for finding in verify(run.output)}
    assert set(findings) == {"manifest.parquet", "data/shards.json"}
    assert findings["manifest.parquet"].index == 3
    assert findings["manifest.parquet"].problem == "row 3: prompt is 'a dog', expected 'cat 3'"


def test_a_list_of_shards_that_the_manifest_does_not_mean_is_found_under_a_seal_that_was_made_anew(
    run: Run, dataset: Path
):
    text, names = (dataset / "data" / "shards.json").read_text(), read_seal(run.output).sha256
    first = json.loads(text)["shards"][0]["made_of"]
    for before, after, told in (
        (first, "0" * 64, "data/00000.tar is not made of the rows of the manifest"),
        ('"holes":[4]', '"holes":[]', "data/00001.tar is not made of the rows of the manifest"),
        ('"end":4,"first":0', '"end":3,"first":0', "has no shard of indexes 0 to 3 (train)"),
    ):
        (dataset / "data" / "shards.json").write_text(text.replace(before, after))
        (dataset / "_SUCCESS").unlink()
        write_seal(run.output, names)
        problems = [finding.problem for finding in verify(run.output) if finding.name == "data/shards.json"]
        assert told in problems


def test_redis_is_held_against_the_output(run: Run):
    ours = LedgerFacts(run.plan.digest, bytes([0b00001000, 0]), {})
    (finding,) = verify(run.output, ledger=ours)
    assert (finding.index, finding.problem) == (FAILED, "is missing, and Redis counts it as done")
    assert list(verify(run.output, ledger=LedgerFacts(run.plan.digest, b"", {FAILED: "the dog ate it"}))) == []
    both = list(verify(run.output, ledger=LedgerFacts("other", b"", {FAILED: "the dog ate it", 0: "so it said"})))
    assert [(finding.name, finding.kind) for finding in both] == [
        ("run.json", "redis"),
        (image_name(next(run.plan.since(0)).id), "redis"),
    ]


def test_no_more_images_are_read_ahead_than_threads_have_in_hand():
    taken = []

    def items() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    results = mapped(lambda number: number * 2, items(), threads=4)
    assert [next(results) for _ in range(3)] == [0, 2, 4]
    assert len(taken) <= 11
    assert list(results)[-1] == 1998


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
    pages = {"run.json", "plan/00000.jsonl.zst"}
    texts = {"data/shards.json", "failures.jsonl", "croissant.json"}
    assert set(sealed) == {*pages, *texts, "manifest.parquet", "packing/manifest.json"}


def test_a_run_in_a_bucket_is_packed_and_verified(run: Run, fake_gcs: FakeGcs, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake_gcs.url)
    bucket = open_output(f"{fake_gcs.create_bucket('datasets')}/cats")
    for name in every_file(run.folder):
        bucket.put_once(name, (run.folder / name).read_bytes())
    finish(bucket, run.plan, {FAILED: "the dog ate it"}, shard_size=4)
    assert list(verify(bucket)) == []
    bucket.put_once("notes.txt", b"mine")
    assert [finding.name for finding in verify(bucket)] == ["notes.txt"]
    assert [finding.name for finding in verify(bucket, fast=True)] == ["notes.txt"]


def test_a_fast_look_at_a_bucket_compares_its_own_checksums(
    run: Run, fake_gcs: FakeGcs, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake_gcs.url)
    bucket = open_output(f"{fake_gcs.create_bucket('checksums')}/cats")
    for name in every_file(run.folder):
        bucket.put_once(name, (run.folder / name).read_bytes())
    finish(bucket, run.plan, {FAILED: "the dog ate it"}, shard_size=4)
    name = image_name(next(run.plan.since(3)).id)
    data = bytearray(bucket.get(name))
    data[len(data) // 2] ^= 1
    bucket.put_once(name, bytes(data), broken=lambda existing: True)
    (finding,) = verify(bucket, fast=True)
    assert (finding.name, finding.index, finding.problem) == (name, 3, "has other bytes than when it was packed")


def test_a_run_json_that_says_other_pages_is_a_finding(run: Run, dataset: Path):
    text = (dataset / "run.json").read_text()
    for changed in ('"jobs_per_plan_file": 9', '"jobs_per_plan_file": 0', '"jobs_per_plan_file": "x"'):
        (dataset / "run.json").write_text(text.replace('"jobs_per_plan_file": 10000', changed))
        assert found(run) == {"run.json"}
