"""An output to lay plans in."""

import uuid
from pathlib import Path

import pytest

from promptmill.producer.outputs.folder import Folder
from promptmill.producer.outputs.open import open_output
from promptmill.producer.outputs.output import Output
from tests.fake_gcs import FakeGcs


@pytest.fixture
def output(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "out")


@pytest.fixture(params=["folder", "bucket"])
def output_of_each_kind(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Output:
    """A folder, and a bucket."""
    if request.param == "folder":
        return open_output(str(tmp_path / "out"))
    fake_gcs: FakeGcs = request.getfixturevalue("fake_gcs")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake_gcs.url)
    return open_output(fake_gcs.create_bucket(f"b{uuid.uuid4().hex}") + "/some/prefix/")
