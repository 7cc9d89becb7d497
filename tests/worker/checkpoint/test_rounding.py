"""A rounded kernel is near what it was, channel by channel."""

import jax.numpy as jnp
import numpy as np
import pytest

from promptmill.worker.checkpoint.rounding import rounded
from promptmill.worker.quantization import FORMATS


def kernel(seed: int = 0) -> np.ndarray:
    """Output channels of very different size."""
    values = np.random.default_rng(seed).standard_normal((3, 3, 16, 24), np.float32)
    return (values * np.logspace(-6, 3, 24, dtype=np.float32)).astype(np.float32)


def test_int8_is_at_most_half_a_step_of_its_channel_away() -> None:
    values, scale = rounded(kernel(), np.dtype("int8"))
    assert values.dtype == np.int8 and values.shape == (3, 3, 16, 24) and scale.shape == (24,)
    assert (np.abs(values * scale - kernel()) <= 0.501 * np.abs(kernel()).max(axis=(0, 1, 2)) / 127).all()


def test_float8_keeps_three_bits_of_each_number_that_is_not_small_in_its_channel() -> None:
    values, scale = rounded(kernel(), jnp.dtype("float8_e4m3fn"))
    found, wanted = values.astype(np.float32) * scale, kernel()
    large = np.abs(wanted) > np.abs(wanted).max(axis=(0, 1, 2)) * 2**-14
    assert large.mean() > 0.99
    assert (np.abs(found - wanted) <= np.abs(wanted) / 15.9)[large].all()


@pytest.mark.parametrize("name", FORMATS.values())
def test_a_channels_farthest_number_is_kept(name: str) -> None:
    values, scale = rounded(kernel(), jnp.dtype(name))
    found = np.abs(values.astype(np.float32) * scale).max(axis=(0, 1, 2))
    np.testing.assert_allclose(found, np.abs(kernel()).max(axis=(0, 1, 2)), rtol=1e-6)


@pytest.mark.parametrize("name", FORMATS.values())
@pytest.mark.parametrize("nothing", [0, 1e-42])
def test_a_channel_of_nothing_stays_nothing(name: str, nothing: float) -> None:
    given = kernel()
    given[..., 5] = nothing
    values, scale = rounded(given, jnp.dtype(name))
    assert np.isfinite(scale).all() and not (values.astype(np.float32) * scale)[..., 5].any()
