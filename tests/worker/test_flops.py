"""Operations are counted as they are run: loops by their trips, devices by their number."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from promptmill.producer.estimate import SHALLOW_SHARE
from promptmill.worker import flops
from promptmill.worker.devices import Devices
from promptmill.worker.flops import count_flops
from promptmill.worker.nn import convolution
from promptmill.worker.sdxl.generate import generate
from promptmill.worker.sdxl.program import Program
from promptmill.worker.sdxl.requests import Kind, PlainRequest
from tests.worker.sdxl.test_full_size import SDXL_BASE, abstract_model
from tests.worker.sdxl.test_traced import steps_of

A, B = jnp.ones((3, 5)), jnp.ones((5, 7))
PRODUCT = 2 * 3 * 5 * 7


def count(function: Any, *arguments: Any, trips: float = 1) -> float:
    return count_flops(jax.make_jaxpr(function)(*arguments), trips=trips)


def test_a_product_is_two_operations_per_multiply_add() -> None:
    assert count(jnp.matmul, A, B) == PRODUCT
    assert count(lambda a, b: jnp.einsum("bij,bjk->bik", a, b), jnp.ones((4, 3, 5)), jnp.ones((4, 5, 7))) == 4 * PRODUCT


@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_counts_each_output_with_its_kernel(groups: int) -> None:
    def convolve(image: jax.Array, kernel: jax.Array) -> jax.Array:
        names = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(
            image, kernel, (2, 2), "SAME", dimension_numbers=names, feature_group_count=groups
        )

    image, kernel = jnp.ones((1, 8, 8, 4)), jnp.ones((3, 3, 4 // groups, 6))
    assert count(convolve, image, kernel) == 2 * (4 * 4 * 6) * (3 * 3 * 4 // groups)


def test_an_upsampling_convolution_counts_alike_folded_and_dilated() -> None:
    image, kernel = jnp.zeros((1, 4, 6, 3)), jnp.zeros((3, 3, 3, 5))
    call = convolution.Call(image.dtype, 3, 3, 5, 1, True)
    dilated = partial(convolution.dilated, kernel=convolution.widen_upsampling(kernel), call=call)
    assert count(dilated, image) == 2 * (8 * 12 * 5) * (2 * 2 * 3)


def test_a_loop_counts_as_often_as_it_runs() -> None:
    square = jnp.ones((3, 3))
    body = lambda _, matrix: matrix @ square  # noqa: E731
    assert count(lambda m: lax.fori_loop(0, 9, body, m), square) == 9 * 2 * 27
    assert count(lambda m, n: lax.fori_loop(0, n, body, m), square, 4, trips=4) == 4 * 2 * 27
    assert count(lambda m: lax.map(lambda one: one @ square, m), jnp.ones((5, 3, 3))) == 5 * 2 * 27
    assert count(lambda m, n: lax.cond(n > 0, lambda: m @ m, lambda: m), square, 1) == 2 * 27


def test_each_device_counts() -> None:
    devices = Devices.of()
    traced = devices.jit(lambda weights, batch: batch @ weights).trace(B, jnp.ones((3 * devices.count, 5)))
    assert count_flops(traced.jaxpr, trips=1) == PRODUCT * devices.count == PRODUCT * 8


@pytest.mark.slow
def test_xla_counts_the_same_where_each_loop_runs_once(
    program_of_three: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for what is cheap: XLA counts additions and norms too."""
    request = PlainRequest("a cat", 64, 64, num_inference_steps=1, guidance_scale=5.0)
    (jaxpr, trips), *_ = program_of_three.traced(program_of_three.prepare([request]))
    whole = count_flops(jaxpr, trips=trips)
    monkeypatch.setattr(flops, "_times", lambda equation, trips: 1.0)
    once = count_flops(jaxpr, trips=trips)
    assert once == pytest.approx(program_of_three.lowered().cost_analysis()["flops"], rel=0.1)
    assert trips == 1 and whole > 1.3 * once  # three images' decoders are a loop


@pytest.mark.slow
@pytest.mark.parametrize(("size", "unet", "decoder"), [(1024, 6.76, 10.5), (512, 1.59, 2.5)])
def test_sdxl_at_full_size_costs_what_pytorchs_counter_says(
    size: int, unet: float, decoder: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pass of the UNet at 1024 x 1024: 6.76 * 10^12, the decoder 10.5, the text encoders 0.11.

    Less what an upsampling convolution need not multiply: 5 of 9 weights, for each channel in and out and each pixel.
    As accelerators compute it: nothing by Winograd.
    """
    monkeypatch.setattr(convolution, "WINOGRAD_CHANNELS", 2**30)
    monkeypatch.setattr(convolution, "WINOGRAD_UPSAMPLING_CHANNELS", 2**30)
    unet -= sum(2 * 5 * width**2 * (size // 8 // scale) ** 2 for width, scale in [(1280, 2), (640, 1)]) / 1e12
    decoder -= sum(2 * 5 * width**2 * (size // scale) ** 2 for width, scale in [(512, 4), (512, 2), (256, 1)]) / 1e12
    weights, inputs, graphs = abstract_model(Kind(size, size, guided=False), PlainRequest("a cat", size, size))
    jaxpr = jax.make_jaxpr(partial(generate, SDXL_BASE, graphs, Kind(size, size, False).stage))(weights, inputs)
    none, one, two = (count_flops(jaxpr, trips=trips) / 1e12 for trips in (0, 1, 2))
    assert one == pytest.approx(unet + decoder + 0.11, rel=0.04)
    assert two - one == pytest.approx(one - none)
    assert 0.95 * unet < one - none <= 1.01 * unet, "the text's keys and values are made once, before the steps"


@pytest.mark.slow
def test_deepcache_computes_a_small_share_of_sdxl_at_every_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "WINOGRAD_CHANNELS", 2**30)
    monkeypatch.setattr(convolution, "WINOGRAD_UPSAMPLING_CHANNELS", 2**30)
    kind = Kind(1024, 1024, guided=False, cached=True)
    weights, inputs, graphs = abstract_model(kind, PlainRequest("a cat", 1024, 1024))
    jaxpr = jax.make_jaxpr(partial(generate, SDXL_BASE, graphs, kind.stage))(weights, inputs)
    body = steps_of(jaxpr.jaxpr).params["body_jaxpr"]
    (deep,) = (equation for equation in body.jaxpr.eqns if equation.primitive.name == "cond")
    every = max(count_flops(branch, trips=1) for branch in deep.params["branches"])
    assert 1 - every / count_flops(body, trips=1) == pytest.approx(SHALLOW_SHARE, abs=0.0005)
