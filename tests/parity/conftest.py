"""The tiny model and its programs, each compiled once."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import jax
import pytest

from worker.sdxl.program import Model, PlainRequest, Program
from worker.sdxl.requests import is_guided
from worker.sdxl.tiny import write_tiny_random


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_random(tmp_path_factory.mktemp("parity") / "tiny-random")


@pytest.fixture(scope="session")
def model(tiny_folder: Path) -> Model:
    return Model.load(tiny_folder, devices=jax.local_devices()[:1])


@pytest.fixture(scope="session")
def program_for(model: Model) -> Callable[[PlainRequest], Program]:
    """The program of a request's shape."""

    @cache
    def compiled(width: int, height: int, guided: bool) -> Program:
        return model.compile(width=width, height=height, guided=guided)

    return lambda request: compiled(request.width, request.height, is_guided(model.config, request.guidance_scale))
