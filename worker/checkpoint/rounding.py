"""A kernel in one byte per number, and a scale for each output channel: `values * scale` is near what it was."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Shaped

_NOTHING = 1e-30
"""Channels that training has given up hold such numbers, and one over them is no number of float32."""


def rounded(
    kernel: Float[np.ndarray, "... O"], dtype: np.dtype
) -> tuple[Shaped[np.ndarray, "... O"], Float[np.ndarray, " O"]]:
    """The values in this dtype, and the scales: a channel's farthest number from zero becomes the dtype's largest."""
    whole = jnp.issubdtype(dtype, jnp.integer)
    largest = np.float32((jnp.iinfo if whole else jnp.finfo)(dtype).max)
    farthest = np.maximum(kernel.max(axis=_inputs(kernel)), -kernel.min(axis=_inputs(kernel)))
    scale = np.where(farthest < _NOTHING, np.float32(1), farthest / largest)
    # Divided and rounded, the farthest may come out a last bit above.
    values = kernel / scale
    np.clip(values, -largest, largest, out=values)
    return (np.rint(values, out=values) if whole else values).astype(dtype), scale


def _inputs(kernel: Float[np.ndarray, "... O"]) -> tuple[int, ...]:
    return tuple(range(kernel.ndim - 1))
