"""Outputs to test: a folder, and a bucket in a real server."""

from __future__ import annotations

import errno
import os
import uuid
from pathlib import Path

import pytest

from promptmill.producer.outputs.open import open_output
from promptmill.producer.outputs.output import (
    Output,
)
from tests.fake_gcs import FakeGcs


@pytest.fixture(params=["folder", "bucket"])
def output(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Output:
    if request.param == "folder":
        return open_output(str(tmp_path / "out"))
    fake_gcs: FakeGcs = request.getfixturevalue("fake_gcs")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake_gcs.url)
    return open_output(fake_gcs.create_bucket(f"b{uuid.uuid4().hex}") + "/some/prefix/")


@pytest.fixture
def no_hard_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system such as FAT or SMB."""

    def refuse(source: Path, target: Path, **kwargs: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), str(source))

    monkeypatch.setattr(os, "link", refuse)
