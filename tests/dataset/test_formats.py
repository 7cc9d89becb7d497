"""Each format keeps what tars keep: the same bytes again, put once, gone on with, and no fault unseen."""

import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from promptmill.dataset.finish import finish
from promptmill.dataset.formats import FORMATS
from promptmill.dataset.options import PackOptions
from promptmill.dataset.verify import verify
from promptmill.producer.outputs.open import open_output
from tests.dataset.conftest import FAILED, Run
from tests.dataset.faults import every_file
from tests.fake_gcs import FakeGcs


def packed(run: Run, **options: Any) -> dict[str, bytes]:
    """The dataset's files."""
    splits = {"train": 0.5, "val": 0.5}
    finish(run.output, run.plan, {FAILED: "dog"}, options=PackOptions(shard_size=2, splits=splits, **options))
    return {name: (run.folder / name).read_bytes() for name in every_file(run.folder) if name.startswith("data/")}


@pytest.fixture(params=FORMATS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_dataset_is_the_same_bytes_whenever_it_is_built(run: Run, name: str):
    before = packed(run, format=name)
    for path in every_file(run.folder):
        if path.startswith(("data/", "packing/", "manifest", "_SUCCESS")):
            (run.folder / path).unlink()
    assert packed(run, format=name) == before


def test_what_is_gone_is_built_again_and_the_rest_is_left(run: Run, name: str):
    before = packed(run, format=name)
    times = {path: (run.folder / path).stat().st_mtime_ns for path in before}
    for path in sorted(before)[:4:3]:
        (run.folder / path).unlink()
        assert packed(run, format=name) == before
        now = {path: (run.folder / path).stat().st_mtime_ns for path in before}
        assert {path for path in before if now[path] != times[path]} == {path}
        times = now


def test_verify_finds_a_flipped_bit_in_each_object(run: Run, name: str):
    packed(run, format=name)
    assert list(verify(run.output)) == []
    draw = random.Random(name)
    for path in every_file(run.folder):
        before = (run.folder / path).read_bytes()
        at = draw.randrange(len(before))
        (run.folder / path).write_bytes(before[:at] + bytes([before[at] ^ 4]) + before[at + 1 :])
        found = {finding.name for finding in verify(run.output)}
        assert path in found if path.startswith(("data/", "packing/")) else found, f"{path}: {at}"
        (run.folder / path).write_bytes(before)


def test_verify_finds_an_object_that_is_gone_or_foreign(run: Run, name: str):
    before = packed(run, format=name)
    for path in before:
        (run.folder / path).rename(run.folder / "aside")
        assert path in {finding.name for finding in verify(run.output)}
        (run.folder / "aside").rename(run.folder / path)
    (run.folder / "data" / "train-00009.tar").write_bytes(b"mine")
    assert [finding.name for finding in verify(run.output)] == ["data/train-00009.tar"]


def test_a_bucket_is_packed_as_a_folder_is(
    run: Run, name: str, fake_gcs: FakeGcs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake_gcs.url)
    bucket = open_output(f"{fake_gcs.create_bucket(f'{name}s')}/cats")
    for path in every_file(run.folder):
        bucket.put_once(path, (run.folder / path).read_bytes())
    options = PackOptions(format=name, shard_size=2, splits={"train": 0.5, "val": 0.5})
    finish(bucket, run.plan, {FAILED: "dog"}, options=options)
    assert list(verify(bucket)) == []
    assert {path: bucket.get(path) for path in bucket.list("data/")} == packed(run, format=name)


def test_parquet_has_few_images_per_row_group(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("promptmill.dataset.tables.GROUP_ROWS", 3)
    finish(run.output, run.plan, {FAILED: "dog"}, options=PackOptions(format="parquet"))
    metadata = pq.ParquetFile(run.folder / "data" / "00000.parquet").metadata
    assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == [3, 3, 3]
    monkeypatch.setattr("promptmill.dataset.tables.GROUP_BYTES", 1)
    for path in ("data", "packing"):
        for file in (run.folder / path).iterdir():
            file.unlink()
    (run.folder / "_SUCCESS").unlink()
    finish(run.output, run.plan, {FAILED: "dog"}, options=PackOptions(format="parquet"))
    assert pq.ParquetFile(run.folder / "data" / "00000.parquet").metadata.num_row_groups == 9
