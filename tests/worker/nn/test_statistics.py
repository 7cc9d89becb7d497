"""A table says how groups are measured; each way measures the same."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from promptmill.worker.nn.layers import GroupNorm
from promptmill.worker.nn.statistics import by_channels, by_groups, by_squares, choose, over_channels

Way = Callable[[jax.Array, int], Any]
WAYS = [by_groups, by_channels, by_squares]


def image(offset: float, dtype: Any = jnp.float32) -> jax.Array:
    """Channels of different means, `offset` and more of their deviations away from 0."""
    drawn = np.random.default_rng(0).standard_normal((2, 12, 10, 8))
    return jnp.asarray(drawn + offset + np.arange(8), dtype)


def exact(x: jax.Array, groups: int) -> list[np.ndarray]:
    wide = np.asarray(x.astype(jnp.float32), np.float64).reshape(*x.shape[:3], groups, -1)
    return [part(wide, axis=(1, 2, 4), keepdims=True) for part in (np.mean, np.var)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("groups", [1, 4, 8])
def test_each_way_gives_the_mean_and_variance_of_groups(way: Way, groups: int) -> None:
    for got, expected in zip(jax.jit(way, static_argnums=1)(image(0), groups), exact(image(0), groups), strict=True):
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("way", [by_groups, by_channels])
def test_a_mean_far_from_zero_costs_no_digits_in_float32(way: Way) -> None:
    x = image(1000)
    np.testing.assert_allclose(jax.jit(way, static_argnums=1)(x, 4)[1], exact(x, 4)[1], rtol=1e-5)


def test_squares_cost_less_than_half_precision_has_cost() -> None:
    x = image(30, jnp.bfloat16)  # its last bit is an eighth of a deviation
    error = np.abs(jax.jit(by_squares, static_argnums=1)(x, 4)[1] / exact(x, 4)[1] - 1)
    rounded = np.abs(exact(x, 4)[1] / exact(image(30), 4)[1] - 1)
    assert 20 * error.max() < rounded.max()


def test_a_variance_is_never_below_zero() -> None:
    flat = jnp.full((1, 16, 16, 4), 300.1, jnp.float16)
    assert np.all(np.asarray(by_squares(flat, 2)[1]) >= 0)


@pytest.mark.parametrize(
    ("dtype", "backend", "way"),
    [
        (jnp.bfloat16, "gpu", by_squares),
        (jnp.float16, "gpu", by_squares),
        (jnp.float32, "gpu", by_channels),
        (jnp.bfloat16, "cpu", by_squares),
        (jnp.bfloat16, "tpu", by_squares),
        (jnp.float32, "cpu", by_groups),
        (jnp.float32, "tpu", by_groups),
    ],
)
def test_a_table_says_which_way(dtype: jnp.dtype, backend: str, way: Way) -> None:
    assert choose(jnp.dtype(dtype), backend).moments is way


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_on_a_gpu_no_sum_has_a_number_for_each_pixel_and_group(monkeypatch: pytest.MonkeyPatch, dtype: Any) -> None:
    """XLA sums the last axis first, and would write that: a third of what a decoder's norms moved."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    norm = GroupNorm(8, groups=4, eps=1e-5)
    jaxpr = jax.make_jaxpr(lambda x: norm(x))(image(0, dtype)).jaxpr
    sums = [equation for equation in jaxpr.eqns if equation.primitive.name == "reduce_sum"]
    assert sums
    for each in sums:
        assert each.invars[0].aval.shape[-1] == 8 or each.invars[0].aval.size <= 2 * 8


@pytest.mark.parametrize("backend", ["cpu", "gpu", "tpu"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_layer_norm_is_the_same_on_each_backend(monkeypatch: pytest.MonkeyPatch, dtype: Any, backend: str) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    x = image(8, dtype)
    wide = np.asarray(x.astype(jnp.float32), np.float64)
    mean, variance = jax.jit(lambda x: over_channels(x))(x)
    np.testing.assert_allclose(mean, wide.mean(-1, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(variance, wide.var(-1, keepdims=True), rtol=1e-3)
