"""The model that everything here is made of."""

from pathlib import Path

import pytest

from promptmill.worker.sdxl.tiny import write_tiny_random


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small SDXL whose weights are random: PyTorch and we both read it."""
    return write_tiny_random(tmp_path_factory.mktemp("import") / "tiny")
