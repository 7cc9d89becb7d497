"""Models and programs in memory: how many, how large a batch, and what goes for what. With the tiny model."""

import json
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from promptmill.producer.job import Shape
from promptmill.worker import executables
from promptmill.worker import programs as programs_module
from promptmill.worker.checks import Checks
from promptmill.worker.devices import is_out_of_memory
from promptmill.worker.errors import ConfigError, ModelError, WeightsError
from promptmill.worker.programs import Programs, Trouble
from promptmill.worker.sdxl.tiny import write_tiny_random
from promptmill.worker.settings import WorkerSettings

pytestmark = pytest.mark.slow

OUT_OF_MEMORY = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 68719476736 bytes.")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Shape, int]]]:
    """Programs are made, not compiled: only what is kept is looked at. What was made, and for how many per device."""
    made: list[tuple[Shape, int]] = []

    class Program:
        def __init__(self, batch: int) -> None:
            self.batch = batch

    def compile_only(self: Programs, shape: Shape) -> Program:
        for name in programs_module.models_of(shape):
            self._model(name, programs_module.models_of(shape))
        made.append((shape, self.per_device(shape)))
        return Program(self.per_device(shape))

    monkeypatch.setattr(Programs, "_compile", compile_only)
    yield made


def programs(**settings: int) -> Programs:
    return Programs(WorkerSettings(**settings), Checks({}))  # type: ignore[arg-type]


def shapes(folder: Path, count: int) -> list[Shape]:
    return [Shape(str(folder), 64 + 8 * n, 64, True) for n in range(count)]


def test_programs_that_were_not_used_for_the_longest_time_go(tiny_folder: Path, quick: object):
    kept = programs(shapes_kept=2)
    a, b, c = shapes(tiny_folder, 3)
    kept.make(a)
    kept.make(b)
    assert kept.at_hand(a)
    kept.make(c)
    assert [shape in kept for shape in (a, b, c)] == [True, False, True]
    assert kept.trouble(b) is Trouble.COMPILE, "its model is still there"


def test_a_batch_that_is_too_large_is_halved_until_it_is_one(tiny_folder: Path, quick: list[tuple[Shape, int]]):
    own = programs(per_device_batch=3)
    (shape,) = shapes(tiny_folder, 1)
    first = own.make(shape)
    assert own.halve(shape, first)
    assert shape not in own
    second = own.make(shape)
    assert own.halve(shape, first), "a batch of the old program: nothing more is to be done"
    assert shape in own
    assert not own.halve(shape, second)
    assert [images for _, images in quick] == [3, 1]


def test_a_warm_up_without_memory_is_tried_with_half(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[int] = []

    def too_large(self: Programs, shape: Shape) -> object:
        asked.append(self.per_device(shape))
        if asked[-1] > 2:
            raise OUT_OF_MEMORY
        return object()

    monkeypatch.setattr(Programs, "_compile", too_large)
    (shape,) = shapes(tiny_folder, 1)
    programs(per_device_batch=8).make(shape)
    assert asked == [8, 4, 2]


def test_one_image_per_device_that_has_no_memory_is_an_error(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch):
    def too_large(self: Programs, shape: Shape) -> object:
        raise OUT_OF_MEMORY

    monkeypatch.setattr(Programs, "_compile", too_large)
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
        programs(per_device_batch=2).make(shapes(tiny_folder, 1)[0])


def test_only_what_xla_says_is_a_lack_of_memory():
    assert is_out_of_memory(OUT_OF_MEMORY)
    assert not is_out_of_memory(jax.errors.JaxRuntimeError("INTERNAL: RET_CHECK failure"))
    assert not is_out_of_memory(ValueError("RESOURCE_EXHAUSTED"))


def test_a_model_that_cannot_be_loaded_evicts_nothing(tiny_folder: Path, tmp_path: Path, quick: object):
    good, cut = shapes(tiny_folder, 1)[0], write_tiny_random(tmp_path / "cut")
    weights = cut / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    strange = write_tiny_random(tmp_path / "strange")
    config = json.loads((strange / "unet" / "config.json").read_text())
    (strange / "unet" / "config.json").write_text(json.dumps({**config, "block_out_channels": [16, 48]}))
    own = programs()
    own.make(good)
    for folder in (cut, strange, tmp_path / "none"):
        (shape,) = shapes(folder, 1)
        assert own.trouble(shape) is Trouble.EVICT
        with pytest.raises(ModelError) as error:
            own.make(shape)
        assert good in own, f"evicted for {error.value}"
    other = shapes(write_tiny_random(tmp_path / "other"), 1)[0]
    own.make(other)
    assert good not in own, "what can be loaded takes its place"


def test_errors_of_a_models_files_are_found_without_reading_weights(tmp_path: Path):
    from promptmill.worker.sdxl.program import Model

    folder = write_tiny_random(tmp_path / "model")
    Model.check(folder)
    (folder / "vae" / "config.json").write_text('{"latent_channels": "four"}')
    with pytest.raises((ConfigError, WeightsError)):
        Model.check(folder)


def test_a_kept_executable_that_fails_is_compiled_anew_and_anything_else_is_told(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A worker that cannot render because of what lies in its cache would not get well by itself."""
    (shape,) = shapes(tiny_folder, 1)
    (tmp_path / "executable").touch()
    monkeypatch.setattr(executables, "_unproven", [tmp_path / "executable"])
    tries: list[Shape] = []

    def fail(self: Programs, shape: Shape) -> None:
        tries.append(shape)
        raise jax.errors.JaxRuntimeError("NOT_FOUND: Function iota_gather_fusion not found")

    monkeypatch.setattr(Programs, "_compile", fail)
    with pytest.raises(jax.errors.JaxRuntimeError, match="iota"):
        programs().make(shape)
    assert len(tries) == 2 and not (tmp_path / "executable").exists()
