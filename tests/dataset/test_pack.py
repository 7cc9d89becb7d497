"""Shards: what readers find in them, that they are the same bytes again, and what is done once."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from promptmill.dataset.pack import pack
from promptmill.producer.outputs.output import OutputConflict
from tests.dataset.conftest import FAILED, Run


def packed(run: Run, scratch: Path, size: int = 4) -> dict[str, bytes]:
    scratch.mkdir()
    assert [(shard.first, shard.end) for shard in pack(run.output, run.plan, scratch, size)] == [
        (0, 4),
        (4, 8),
        (8, 10),
    ]
    return {path.name: path.read_bytes() for path in (run.folder / "data").glob("*.tar")}


def test_a_shard_holds_its_range_and_names_its_holes(run: Run, tmp_path: Path):
    packed(run, tmp_path / "scratch")
    with tarfile.open(run.folder / "data" / "00001.tar") as tar:
        keys = [name.partition(".")[0] for name in tar.getnames()]
    assert sorted(set(keys)) == ["000000005", "000000006", "000000007"]
    index = json.loads((run.folder / "data" / "shards.json").read_text())
    assert [shard["holes"] for shard in index["shards"]] == [[], [FAILED], []]
    assert [shard["samples"] for shard in index["shards"]] == [4, 3, 2]


def test_shards_are_the_same_bytes_whenever_they_are_built(run: Run, tmp_path: Path):
    first = packed(run, tmp_path / "one")
    for path in (run.folder / "data").iterdir():
        path.unlink()
    assert packed(run, tmp_path / "two") == first


def test_packing_goes_on_where_it_was_stopped(run: Run, tmp_path: Path):
    (tmp_path / "one").mkdir()
    shards = pack(run.output, run.plan, tmp_path / "one", 4)
    next(shards)
    shards.close()  # type: ignore[attr-defined]
    assert not (run.folder / "data" / "shards.json").exists()
    assert len(packed(run, tmp_path / "two")) == 3


def test_shards_of_another_size_are_left_alone(run: Run, tmp_path: Path):
    packed(run, tmp_path / "one")
    with pytest.raises(OutputConflict):
        list(pack(run.output, run.plan, tmp_path, 5))


def test_hugging_face_reads_what_was_rendered(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    datasets = pytest.importorskip("datasets")
    packed(run, tmp_path / "scratch")
    files = str(run.folder / "data" / "*.tar")
    for streaming in (False, True):
        found = datasets.load_dataset(
            "webdataset",
            data_files={"train": files},
            split="train",
            streaming=streaming,
            cache_dir=str(tmp_path / "hf"),
        )
        samples = list(found)
        assert [sample["json"]["index"] for sample in samples] == sorted(run.pixels)
        for sample in samples:
            np.testing.assert_array_equal(np.asarray(sample["png"]), run.pixels[sample["json"]["index"]])
            assert sample["txt"] == sample["json"]["prompt"]


def test_webdataset_reads_what_was_rendered(run: Run, tmp_path: Path):
    webdataset = pytest.importorskip("webdataset")
    packed(run, tmp_path / "scratch")
    urls = [str(path) for path in sorted((run.folder / "data").glob("*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8"))
    assert [sample["json"]["index"] for sample in samples] == sorted(run.pixels)
    for sample in samples:
        np.testing.assert_array_equal(sample["png"], run.pixels[sample["json"]["index"]])
