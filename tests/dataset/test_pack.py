"""Shards: what they hold, that they are the same bytes again, and what is done once."""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from promptmill.dataset.finish import finish
from promptmill.dataset.manifest import MANIFEST, write_manifest
from promptmill.dataset.options import PackError, PackOptions, parse_bytes, parse_splits, split_of
from promptmill.dataset.pack import Shard, pack
from promptmill.dataset.rows import Rows
from promptmill.dataset.samples import ImageChangedError, job_json
from promptmill.dataset.tar import header, write_tar
from promptmill.producer.outputs.output import OutputConflict
from tests.dataset.conftest import FAILED, REPEATED, Run

HALVES = {"train": 0.5, "val": 0.5}


@pytest.fixture
def rows(run: Run, tmp_path: Path) -> Iterator[Rows]:
    write_manifest(tmp_path / MANIFEST, run.output, run.plan, {FAILED: "the dog ate it"})
    with Rows(tmp_path / MANIFEST) as found:
        yield found


def packed(run: Run, rows: Rows, scratch: Path, **options: object) -> list[Shard]:
    scratch.mkdir(exist_ok=True)
    shards = list(pack(run.output, rows, scratch, PackOptions(**{"shard_size": 4, **options})))  # type: ignore[arg-type]
    assert list(scratch.iterdir()) == []
    return shards


def in_data(run: Run) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run.folder / "data").iterdir()}


def keys_in(path: Path) -> list[int]:
    with tarfile.open(path) as tar:
        return [int(name.partition(".")[0]) for name in tar.getnames() if name.endswith(".json")]


def test_a_shard_holds_its_range_and_names_its_holes(run: Run, rows: Rows, tmp_path: Path):
    shards = packed(run, rows, tmp_path / "scratch")
    assert [(shard.first, shard.end) for shard in shards] == [(0, 4), (4, 8), (8, 10)]
    assert keys_in(run.folder / "data" / "00001.tar") == [5, 6, 7]
    index = json.loads((run.folder / "data" / "shards.json").read_text())
    assert [shard["holes"] for shard in index["shards"]] == [[], [FAILED], []]
    assert [shard["samples"] for shard in index["shards"]] == [4, 3, 2]


def test_a_sample_has_its_job_as_the_plan_has_it(run: Run, rows: Rows):
    jobs = [run.plan.whole(planned).to_json() for planned in run.plan]
    assert [job_json(row) for row in rows.between(0, len(rows))] == jobs


def test_rows_are_found_by_their_indexes(rows: Rows):
    for first in range(10):
        for end in range(first, 11):
            assert [row["index"] for row in rows.between(first, end, ["index"])] == list(range(first, end))


def test_shards_are_the_same_bytes_whenever_they_are_built(run: Run, rows: Rows, tmp_path: Path):
    packed(run, rows, tmp_path / "scratch")
    first = in_data(run)
    for path in (*(run.folder / "data").iterdir(), *(run.folder / "packing").iterdir()):
        path.unlink()
    packed(run, rows, tmp_path / "scratch")
    assert in_data(run) == first


def test_packing_goes_on_where_it_was_stopped(run: Run, rows: Rows, tmp_path: Path):
    shards = pack(run.output, rows, tmp_path, PackOptions(shard_size=4))
    first = next(shards)
    shards.close()  # type: ignore[attr-defined]
    assert not (run.folder / "data" / "shards.json").exists()
    for row in rows.between(0, 4):  # whoever reads them again finds nothing
        (run.folder / row["path"]).rename(tmp_path / row["id"])
    with pytest.raises(ImageChangedError, match="is gone since"):  # index 7 is the job of index 2
        packed(run, rows, tmp_path / "scratch")
    for row in rows.between(2, 3):
        (tmp_path / row["id"]).rename(run.folder / row["path"])
    assert packed(run, rows, tmp_path / "scratch")[0] == first


def test_a_shard_that_is_gone_is_built_again(run: Run, rows: Rows, tmp_path: Path):
    shards = packed(run, rows, tmp_path / "scratch")
    before = in_data(run)
    (run.folder / shards[1].name).unlink()
    assert packed(run, rows, tmp_path / "scratch") == shards
    assert in_data(run) == before


def test_a_dataset_of_other_options_is_left_alone_and_told(run: Run, rows: Rows, tmp_path: Path):
    packed(run, rows, tmp_path / "scratch")
    with pytest.raises(OutputConflict, match="is packed already, with --shard-size 4; it is left as it is"):
        packed(run, rows, tmp_path / "scratch", shard_size=5)
    (run.folder / "data" / "shards.json").unlink()  # as after a stop
    with pytest.raises(OutputConflict, match=r"00000\.tar is taken by something else"):
        packed(run, rows, tmp_path / "scratch", shard_size=3)


def test_an_image_that_changed_since_the_manifest_is_not_packed(run: Run, rows: Rows, tmp_path: Path):
    (row,) = rows.between(6, 7)
    path = run.folder / row["path"]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ImageChangedError, match=f"{row['id']}.png has other bytes than when the manifest was written"):
        packed(run, rows, tmp_path / "scratch")


def test_splits_have_each_index_once_and_a_prompt_is_in_one(run: Run, rows: Rows, tmp_path: Path):
    shards = packed(run, rows, tmp_path / "scratch", splits=HALVES, shard_size=2)
    found = {"train": list[int](), "val": list[int]()}
    for shard in shards:
        assert shard.name.startswith(f"data/{shard.split}-")
        found[shard.split] += keys_in(run.folder / shard.name) + list(shard.holes)
    assert sorted(found["train"] + found["val"]) == list(range(10)) and found["train"] and found["val"]
    assert any({2, REPEATED} <= set(indexes) for indexes in found.values())
    index = json.loads((run.folder / "data" / "shards.json").read_text())
    counted = {name: split["samples"] + split["holes"] for name, split in index["splits"].items()}
    assert counted == {name: len(indexes) for name, indexes in found.items()}
    assert all(len(shard.holes) + shard.samples <= 2 for shard in shards)


def test_options_come_back_from_the_index_with_their_splits_in_order(run: Run, rows: Rows, tmp_path: Path):
    options = {"splits": {"train": 0.6, "test": 0.4}, "quality": 3, "image_format": "webp", "resize": "32"}
    packed(run, rows, tmp_path / "scratch", **options)
    index = json.loads((run.folder / "data" / "shards.json").read_text())
    found = PackOptions.from_json(index["options"])
    assert found == PackOptions(shard_size=4, **options)  # type: ignore[arg-type]
    assert list(found.splits) == ["train", "test"]
    with pytest.raises(OutputConflict, match=r"with --split train=0\.6,test=0\.4, --image-format webp"):
        packed(run, rows, tmp_path / "scratch")


def test_a_prompts_split_is_the_same_in_every_run_and_shares_come_out():
    shares = {"train": 0.9, "val": 0.1}
    drawn = [split_of(f"prompt {number}", shares) for number in range(20_000)]
    assert abs(drawn.count("val") / len(drawn) - 0.1) < 0.01
    animals = ["a cat", "a dog", "a fox", "a hen", "an owl"]
    points = [int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) for text in animals]
    assert [split_of(text, HALVES) for text in animals] == ["train" if point < 2**63 else "val" for point in points]


def test_shards_end_before_they_are_too_large(run: Run, rows: Rows, tmp_path: Path):
    limit = 60_000
    shards = packed(run, rows, tmp_path / "scratch", shard_bytes=limit)
    assert [index for shard in shards for index in range(shard.first, shard.end)] == list(range(10))
    assert 1 < len(shards) < 9
    for shard in shards[:-1]:
        assert limit / 2 < shard.bytes <= limit + 10_240, "a tar is filled up to 10,240 bytes"


def test_an_image_larger_than_a_shard_has_its_own(run: Run, rows: Rows, tmp_path: Path):
    assert len(packed(run, rows, tmp_path / "scratch", shard_bytes=1)) == 10


@pytest.mark.parametrize(
    ("text", "expected"), [("1GB", 10**9), ("2 GiB", 2**31), ("500mb", 5 * 10**8), ("1.5k", 1500), ("70", 70)]
)
def test_sizes_are_read(text: str, expected: int):
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "GB", "1XB", "-1GB", "0"])
def test_what_is_no_size_is_refused(text: str):
    with pytest.raises(PackError):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("train=0.9,val=0.2", "are 1.1 together, expected 1"),
        ("train", "'train' is not a name and a share"),
        ("train=0.5,train=0.5", "'train' is there twice"),
        ("train=1,val=0", "'val=0' is not a name and a share"),
        ("../x=1", "'../x=1' is not a name and a share"),
        ("train=nan,val=1", "'train=nan' is not a name"),
    ],
)
def test_wrong_splits_are_refused(text: str, problem: str):
    with pytest.raises(PackError) as told:
        parse_splits(text)
    assert problem in str(told.value)


def test_splits_are_read():
    assert parse_splits("train=0.98, val=0.02") == {"train": 0.98, "val": 0.02}


def test_headers_are_those_that_pythons_tarfile_writes():
    for name, size in (("000000000.json", 0), ("000000017.png", 512), ("x" * 100, 8**11 - 1), ("a", 1)):
        info = tarfile.TarInfo(name)
        info.size, info.mtime, info.mode = size, 0, 0o644
        assert header(name, size) == info.tobuf(tarfile.USTAR_FORMAT)


@pytest.mark.parametrize(
    "sizes", [[], [0], [512], [1, 511, 513], [3000] * 7, [10] * 150, [70_000, 5, 65_536, 65_535]], ids=str
)
def test_a_tar_is_the_one_that_pythons_tarfile_writes(sizes: list[int]):
    members = [(f"{at:09d}.bin", bytes([at]) * size) for at, size in enumerate(sizes)]
    ours, theirs = io.BytesIO(), io.BytesIO()
    write_tar(ours.write, members)
    with tarfile.open(fileobj=theirs, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode = len(data), 0, 0o644
            tar.addfile(info, io.BytesIO(data))
    assert ours.getvalue() == theirs.getvalue()


def test_nothing_is_left_beside_a_run_that_was_packed(run: Run):
    finish(run.output, run.plan, {FAILED: "x"}, shard_size=3)
    assert [path.name for path in run.folder.rglob(".promptmill-*")] == []
    assert all(path.stat().st_nlink == 1 for path in run.folder.glob("data/*"))
