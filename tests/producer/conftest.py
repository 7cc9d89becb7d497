"""An output to lay plans in."""

from pathlib import Path

import pytest

from promptmill.producer.outputs.folder import Folder


@pytest.fixture
def output(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "out")
