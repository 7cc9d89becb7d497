"""The tiny model, written, loaded and compiled once for all tests of the model."""

from pathlib import Path

import jax
import pytest

from promptmill.worker.sdxl.program import Model, Program
from promptmill.worker.sdxl.tiny import write_tiny_random


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_random(tmp_path_factory.mktemp("models") / "tiny-random")


@pytest.fixture(scope="session")
def model(tiny_folder: Path) -> Model:
    """On all devices, which are eight virtual ones."""
    return Model.load(tiny_folder)


@pytest.fixture(scope="session")
def program(model: Model) -> Program:
    """64 x 64, guided, one image a device."""
    return model.compile(width=64, height=64, guided=True)


@pytest.fixture(scope="session")
def program_of_three(tiny_folder: Path) -> Program:
    """64 x 64, guided, three images on one device."""
    model = Model.load(tiny_folder, devices=jax.local_devices()[:1])
    return model.compile(width=64, height=64, guided=True, per_device_batch=3)
