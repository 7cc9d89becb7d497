"""A packed run as the hub's client takes it. No hub is reached."""

import hashlib
import io
from pathlib import Path

import pytest

from promptmill.dataset.finish import finish
from promptmill.dataset.options import PackOptions
from promptmill.dataset.push import PushError, operation, push, uploads
from tests.dataset.conftest import FAILED, Run
from tests.promptmill.conftest import Command, here, promptmill

__all__ = ["here", "promptmill"]


@pytest.fixture(params=["parquet", "imagefolder"])
def dataset(run: Run, request: pytest.FixtureRequest) -> Run:
    finish(run.output, run.plan, {FAILED: "dog"}, options=PackOptions(format=request.param, shard_size=4))
    return run


def test_a_dry_run_lists_the_dataset_and_the_card_last(promptmill: Command, dataset: Run):
    ran = promptmill("push", dataset.folder, "somebody/cats", "--dry-run")
    assert ran.code == 0
    lines = dict(line.split("\t") for line in ran.out.splitlines())
    assert list(lines)[-1] == "README.md"
    there = {str(path.relative_to(dataset.folder)): path.stat().st_size for path in dataset.folder.rglob("*.*")}
    expected = {name for name in there if name.startswith("data/")}
    expected |= {"manifest.parquet", "run.json", "croissant.json", "README.md"}
    assert {name: int(size) for name, size in lines.items()} == {name: there[name] for name in expected}
    assert ran.err == f"somebody/cats: {len(lines)} files, {sum(map(int, lines.values())):,} bytes would go\n"


def test_what_goes_is_what_is_there(dataset: Run):
    for upload in uploads(dataset.output):
        data = (dataset.folder / upload.name).read_bytes()
        asked = operation(dataset.output, upload)
        assert (
            asked.upload_info.sha256.hex()
            == hashlib.sha256(data).hexdigest()
            == (upload.sha256 or asked.upload_info.sha256.hex())
        )
        assert asked.upload_info.size == len(data)
        assert isinstance(asked.path_or_fileobj, io.BufferedReader)
        asked.path_or_fileobj.seek(-3, io.SEEK_END)
        assert asked.path_or_fileobj.read() == data[-3:]


def test_a_run_that_is_not_packed_is_refused(promptmill: Command, run: Run):
    ran = promptmill("push", run.folder, "somebody/cats", "--dry-run")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"promptmill: {run.folder} is not packed: promptmill pack first\n"


def test_a_hub_that_is_not_there_is_told(dataset: Run, tmp_path: Path):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    api = huggingface_hub.HfApi(endpoint="http://127.0.0.1:9", token="hf_none")
    with pytest.raises(PushError, match=r"^somebody/cats: \[Errno 111\]"):
        push(dataset.output, "somebody/cats", api)
    with pytest.raises(PushError, match=r"^not//a//name: "):
        push(dataset.output, "not//a//name", api)
