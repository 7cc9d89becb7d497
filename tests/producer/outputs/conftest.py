"""Outputs to test: a folder, and a bucket in a real server."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from promptmill.producer.outputs.output import Output


@pytest.fixture
def output(output_of_each_kind: Output) -> Output:
    return output_of_each_kind


@pytest.fixture
def no_hard_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system such as FAT or SMB."""

    def refuse(source: Path, target: Path, **kwargs: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), str(source))

    monkeypatch.setattr(os, "link", refuse)
