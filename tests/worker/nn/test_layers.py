"""Norms keep their precision, and odd sizes come back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from promptmill.worker.nn.blocks import Downsample, Upsample
from promptmill.worker.nn.convolution import upsample_2x
from promptmill.worker.nn.layers import GroupNorm, LayerNorm
from promptmill.worker.sdxl.unet import sinusoids


@pytest.mark.parametrize("norm", [LayerNorm(32, eps=1e-6), GroupNorm(32, groups=4, eps=1e-6)])
def test_norms_of_half_precision_take_their_statistics_in_float32(norm: nnx.Module) -> None:
    norm.scale[...] = jnp.ones(32)
    # A large mean: the variance of bfloat16 sums would be noise.
    x = (300 + 8 * jnp.sin(jnp.arange(2 * 5 * 5 * 32.0))).reshape(2, 5, 5, 32).astype(jnp.bfloat16)
    exact = norm(x.astype(jnp.float32))
    assert norm(x).dtype == jnp.bfloat16
    np.testing.assert_allclose(norm(x).astype(jnp.float32), exact, atol=0.02)
    assert float(jnp.std(exact)) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("mean", [0.0, 8.0, 100.0, 1000.0])
def test_the_mean_of_half_precision_costs_no_more_than_its_rounding(mean: float) -> None:
    exact = np.random.default_rng(0).standard_normal((1, 16, 16, 64)) + mean
    rounded = jnp.asarray(exact, jnp.bfloat16)
    expected = normalised(exact)
    lost = np.abs(normalised(np.asarray(rounded, np.float64)) - expected).mean()
    norm = GroupNorm(64, groups=4, eps=1e-6)
    norm.scale[...] = jnp.ones(64)
    assert np.abs(np.asarray(norm(rounded), np.float64) - expected).mean() < 1.1 * lost + 2**-9


def normalised(x: np.ndarray) -> np.ndarray:
    """Four groups, in float64."""
    grouped = x.reshape(1, 16, 16, 4, 16)
    centred = grouped - grouped.mean(axis=(1, 2, 4), keepdims=True)
    return (centred / np.sqrt(np.square(centred).mean(axis=(1, 2, 4), keepdims=True))).reshape(x.shape)


@pytest.mark.parametrize("size", [(4, 4), (5, 4), (9, 7)])
def test_up_after_down_has_the_size_from_before(size: tuple[int, int]) -> None:
    x = jnp.ones((1, *size, 2))
    smaller = Downsample(2)(x)
    assert Upsample(2)(smaller, size=size).shape == x.shape


@pytest.mark.parametrize("backend", ["cpu", "gpu", "tpu"])
@pytest.mark.parametrize("size", [None, (6, 10), (5, 10), (6, 9)], ids=str)
def test_an_upsampled_convolution_is_the_convolution_of_what_was_upsampled(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int] | None, backend: str
) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    x, kernel, bias = (rng(shape) for shape in [(2, 3, 5, 4), (3, 3, 4, 4), (4,)])
    module = Upsample(4)
    module.conv.kernel[...], module.conv.bias[...] = kernel, bias
    height, width = size or (6, 10)
    expected = module.conv.directly(upsample_2x(x)[:, :height, :width])
    np.testing.assert_allclose(module(x, size=size), expected, atol=1e-5)


def rng(shape: tuple[int, ...]) -> jax.Array:
    return jax.random.normal(jax.random.key(len(shape)), shape)


def test_upsampling_repeats_each_pixel() -> None:
    x = jnp.arange(6.0).reshape(1, 2, 3, 1)
    expected = np.repeat(np.repeat(x, 2, axis=1), 2, axis=2)
    assert np.array_equal(upsample_2x(x), expected)


def test_sinusoids_of_an_odd_width_end_in_zero() -> None:
    waves = sinusoids(jnp.array([0.0, 999.0]), 7, cosine_first=True, freq_shift=0)
    assert waves.shape == (2, 7) and waves[:, -1].tolist() == [0, 0] and waves[0, :3].tolist() == [1, 1, 1]
