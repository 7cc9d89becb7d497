"""The tiny model and its programs, each compiled once."""

from collections.abc import Callable
from pathlib import Path

import jax
import pytest

from promptmill.worker.program import AnyProgram
from promptmill.worker.sdxl.program import Model
from promptmill.worker.sdxl.requests import PlainRequest
from promptmill.worker.sdxl.tiny import write_tiny_random
from tests.parity import ours


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_random(tmp_path_factory.mktemp("parity") / "tiny-random")


@pytest.fixture(scope="session")
def model(tiny_folder: Path) -> Model:
    return Model.load(tiny_folder, devices=jax.local_devices()[:1])


@pytest.fixture(scope="session")
def program_for(model: Model) -> Callable[[PlainRequest], AnyProgram]:
    """The program of a request's shape."""
    return ours.programs(model)
