"""A quantised UNet: its images, and that it takes less memory, on the devices and while it runs."""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from jax.extend.core import JaxprEqn

from promptmill.producer.errors import PromptmillError
from promptmill.worker.checkpoints import find_model
from promptmill.worker.executables import fingerprint
from promptmill.worker.quantization import FORMATS, UNQUANTIZED
from promptmill.worker.sdxl.parts import NOT_QUANTIZED
from promptmill.worker.sdxl.program import Model, Program
from promptmill.worker.sdxl.requests import PlainRequest
from promptmill.worker.settings import WorkerSettings
from tests.worker.sdxl.jaxprs import loops, shared_by_all_turns
from tests.worker.sdxl.test_program import CAT, DOG, FOX, render
from tests.worker.sdxl.test_traced import aval

pytestmark = pytest.mark.slow

Compile = Callable[[str], Program]
PROMPTS = ("a red apple on a blue background", "a green tree", "three yellow stars at night")
LEAST_PSNR = {"int8": 33, "float8": 26}
"""In decibels, of the worst of the images below. Measured: docs/performance.md."""


@pytest.fixture(scope="module")
def pocket() -> Compile:
    """The model that the package ships, on one device, in a format: 64 x 64, guided, three images."""

    @cache
    def compiled(quantize: str) -> Program:
        model = Model.load(find_model("pocket"), devices=jax.local_devices()[:1], quantize=quantize)
        return model.compile(width=64, height=64, guided=True, per_device_batch=3)

    return compiled


def parameters(model: Model) -> dict[tuple[Any, ...], Any]:
    return {path: variable[...] for path, variable in nnx.to_flat_state(model.weights["unet"])}


def psnr(image: np.ndarray, wanted: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(image.astype(float) - wanted).mean()))


@pytest.mark.parametrize("name", FORMATS)
def test_images_are_nearly_those_of_the_whole_weights(pocket: Compile, name: str) -> None:
    wishes = [PlainRequest(text, 64, 64, seed=7, num_inference_steps=20, guidance_scale=5.0) for text in PROMPTS]
    wanted, found = render(pocket(UNQUANTIZED), wishes), render(pocket(name), wishes)
    errors = [psnr(image, right) for image, right in zip(found, wanted, strict=True)]
    assert LEAST_PSNR[name] < min(errors) and max(errors) < 60, errors


def test_bits_do_not_depend_on_index_or_neighbours(pocket: Compile) -> None:
    (alone,) = render(pocket("int8"), [CAT])
    assert np.array_equal(render(pocket("int8"), [DOG, FOX, CAT])[2], alone)


@pytest.mark.parametrize("name", FORMATS)
def test_large_kernels_take_one_byte_per_number_on_the_devices(pocket: Compile, name: str) -> None:
    whole, small = parameters(pocket(UNQUANTIZED).model), parameters(pocket(name).model)
    assert sum(part.nbytes for part in small.values()) < 0.3 * sum(part.nbytes for part in whole.values())
    for path, kernel in whole.items():
        if path[-1] == "kernel":
            large = kernel.size >= 4096 and not set(path) & set(NOT_QUANTIZED)
            assert small[path].dtype == (FORMATS[name] if large else np.float32), path


def test_a_scaled_kernel_is_the_checkpoints(pocket: Compile) -> None:
    """Those of several products of the checkpoint side by side among them."""
    whole, small = parameters(pocket(UNQUANTIZED).model), parameters(pocket("int8").model)
    scales = {path: scale for path, scale in small.items() if path[-1] == "kernel_scale"}
    assert {str(path[-2]) for path in scales} >= {"to_qkv", "to_kv", "conv1", "proj_in"}
    for path, scale in scales.items():
        kernel = (*path[:-1], "kernel")
        step = np.asarray(scale)
        distance = np.abs(np.asarray(small[kernel], np.float32) * step - np.asarray(whole[kernel]))
        assert (distance <= 0.501 * step).all(), kernel


def steps_of(program: Program) -> JaxprEqn:
    ((jaxpr, _),) = program.traced(program.prepare([CAT]))
    (loop,) = loops(jaxpr.jaxpr)
    return loop


def test_no_kernel_is_converted_before_the_loop_or_for_all_its_turns(pocket: Compile) -> None:
    """Steps take kernels as they lie on the device, and convert each from what they compute: else XLA would before."""
    program = pocket("int8")
    loop = steps_of(program)
    kernels = [path for path, part in parameters(program.model).items() if part.dtype == np.int8]
    of_the_text = [path for path in kernels if path[-2] == "to_kv"]
    taken = [value for value in loop.invars if aval(value).dtype == np.int8]
    assert len(taken) == len(kernels) - len(of_the_text) > 50
    assert not [each for each in shared_by_all_turns(loop) if aval(each.invars[0]).dtype == np.int8]


@pytest.mark.parametrize("name", FORMATS)
def test_a_running_program_holds_no_second_copy_of_the_kernels(pocket: Compile, name: str) -> None:
    whole, small = (temporary_bytes(pocket(each)) for each in (UNQUANTIZED, name))
    kernels = sum(part.size for path, part in parameters(pocket(name).model).items() if path[-1] == "kernel")
    assert small < whole + 0.1 * kernels * 4, (small, whole, kernels)


def temporary_bytes(program: Program) -> int:
    return int(program._compiled.memory_analysis().temp_size_in_bytes)


def test_an_executable_is_kept_for_one_format(pocket: Compile) -> None:
    found = {
        fingerprint("unet", pocket(name).model.weights, jax.local_devices()[:1]) for name in (UNQUANTIZED, *FORMATS)
    }
    assert len(found) == 3


@pytest.mark.parametrize("given", [{"PROMPTMILL_QUANTIZE": "int4"}, {"PROMPTMILL_QUANTIZE": "1"}])
def test_an_unknown_format_is_refused_with_those_that_are_known(given: dict[str, str]) -> None:
    with pytest.raises(PromptmillError, match="PROMPTMILL_QUANTIZE: must be none or int8 or float8, got"):
        WorkerSettings.from_env(given)
