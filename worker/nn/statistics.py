"""Mean and variance of each group of channels. TABLE says how they are computed: by backend and dtype.

All sums are float32.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

Moments = tuple[Float32[Array, "B 1 1 G 1"], Float32[Array, "B 1 1 G 1"]]
"""Mean and variance."""


class Row(NamedTuple):
    """A way, and what it takes on which backend (`jax.default_backend()`; None is each)."""

    backend: str | None
    takes: Callable[[jnp.dtype], bool]
    moments: Callable[[Float[Array, "B H W C"], int], Moments]


def moments(x: Float[Array, "B H W C"], groups: int) -> Moments:
    """Of each group of channels, over all positions of one image."""
    return choose(x.dtype, jax.default_backend()).moments(x, groups)


def choose(dtype: jnp.dtype, backend: str) -> Row:
    """The first row of TABLE that takes the dtype."""
    return next(row for row in TABLE if row.backend in (None, backend) and row.takes(dtype))


def over_channels(x: Float[Array, "... C"]) -> tuple[Float32[Array, "... 1"], Float32[Array, "... 1"]]:
    """Mean and variance of each position, for a LayerNorm; of half precision from squares, as `by_squares`.

    But not on a GPU: XLA makes one kernel of a LayerNorm there, if the mean is subtracted first.
    """
    y = x.astype(jnp.float32)
    mean = jnp.mean(y, axis=-1, keepdims=True)
    if _is_half(x.dtype) and jax.default_backend() != "gpu":
        return mean, _from_squares(mean, jnp.mean(jnp.square(y), axis=-1, keepdims=True))
    return mean, jnp.mean(jnp.square(y - mean), axis=-1, keepdims=True)


def by_groups(x: Float[Array, "B H W C"], groups: int) -> Moments:
    """All of a group at once, the mean subtracted before squaring."""
    batch, height, width, channels = x.shape
    # B H W (G c) -> B H W G c
    grouped = x.astype(jnp.float32).reshape(batch, height, width, groups, channels // groups)
    mean = jnp.mean(grouped, axis=(1, 2, 4), keepdims=True)
    return mean, jnp.mean(jnp.square(grouped - mean), axis=(1, 2, 4), keepdims=True)


def by_channels(x: Float[Array, "B H W C"], groups: int) -> Moments:
    """Each channel first, the group's mean subtracted before squaring: two readings of x, and none of it is written."""
    x = x.astype(jnp.float32)
    mean = _of_groups(x, groups)
    of_channel = jnp.repeat(mean[..., 0], x.shape[3] // groups, axis=3)  # B 1 1 G -> B 1 1 (G c)
    return mean, _of_groups(jnp.square(x - of_channel), groups)


def by_squares(x: Float[Array, "B H W C"], groups: int) -> Moments:
    """Each channel first, from its sum and the sum of its squares: one reading of x.

    What cancels in float32 is far below what rounding the channel to half precision has cost it.
    """
    x = x.astype(jnp.float32)
    mean = _of_groups(x, groups)
    return mean, _from_squares(mean, _of_groups(jnp.square(x), groups))


def _of_groups(x: Float32[Array, "B H W C"], groups: int) -> Float32[Array, "B 1 1 G 1"]:
    """Means, of pixels first: a sum for each pixel and group would be written to memory."""
    # B 1 1 (G c) -> B 1 1 G c
    channels = jnp.mean(x, axis=(1, 2), keepdims=True).reshape(len(x), 1, 1, groups, -1)
    return jnp.mean(channels, axis=-1, keepdims=True)


def _from_squares(mean: Float32[Array, "..."], square: Float32[Array, "..."]) -> Float32[Array, "..."]:
    return jnp.maximum(square - jnp.square(mean), 0)


def _is_half(dtype: jnp.dtype) -> bool:
    return dtype in (jnp.bfloat16, jnp.float16)


TABLE: tuple[Row, ...] = (
    # One reading of x, or none: what makes x sums it up as it goes.
    Row(None, _is_half, by_squares),
    # XLA for GPUs writes what `by_groups` subtracts, or a sum per pixel and group, to memory.
    Row("gpu", lambda dtype: True, by_channels),
    Row(None, lambda dtype: True, by_groups),
)
"""Ways, the better first."""
