"""Each algorithm gives the convolution that PyTorch gives, and the table chooses the one that pays."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from promptmill.worker.nn import convolution
from promptmill.worker.nn.convolution import (
    PLAIN,
    UPSAMPLED,
    Call,
    Winograd,
    by_products,
    choose,
    dilated,
    direct,
    direct_outputs_first,
    folded,
    folded_outputs_first,
    neighbours,
    upsample_2x,
)
from promptmill.worker.nn.layers import Conv, prepare_kernels

SIZES = [(2, 6, 10), (1, 7, 5), (1, 1, 1), (3, 2, 9)]
SCHEMES = pytest.mark.parametrize("scheme", [PLAIN, UPSAMPLED], ids=["plain", "upsampled"])
PLAIN_CALL = Call(jnp.dtype("float32"), 3, 320, 320, 1, False)


def rng(*shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(sum(shape)), shape)


def reference(x: jax.Array, kernel: jax.Array) -> np.ndarray:
    """In float64, by NumPy: a sum over the nine neighbours."""
    _, height, width, _ = x.shape
    padded = np.pad(np.asarray(x, np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifts = [(row, column) for row in range(3) for column in range(3)]
    return np.asarray(
        sum(padded[:, r : r + height, c : c + width] @ np.asarray(kernel[r, c], float) for r, c in shifts)
    )


def compiled(scheme: Winograd, call: Call) -> Any:
    return jax.jit(lambda x, kernel: scheme.convolve(x, scheme.prepare(kernel), call))


@SCHEMES
@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_winograds_products_give_the_convolution(
    scheme: Winograd, bands: int, size: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, kernel = rng(*size, 12), rng(3, 3, 12, 8)
    rows = -(-size[1] // scheme.step)
    if bands > 1:
        monkeypatch.setattr(convolution, "MAX_TRANSFORMED", 1 + 1000 * rows // bands)
    y = compiled(scheme, PLAIN_CALL._replace(inputs=12, outputs=8))(x, kernel)
    expected = reference(upsample_2x(x) if scheme is UPSAMPLED else x, kernel)
    assert y.shape == expected.shape
    np.testing.assert_allclose(y, expected, atol=3e-5)


@SCHEMES
def test_winograd_rounds_no_worse_than_xla_twice(scheme: Winograd) -> None:
    x, kernel = rng(2, 16, 16, 320), rng(3, 3, 320, 256) / 54
    seen = upsample_2x(x) if scheme is UPSAMPLED else x
    call, expected = PLAIN_CALL._replace(outputs=256), reference(seen, kernel)
    ours, xlas = compiled(scheme, call)(x, kernel) - expected, direct(seen, kernel, call) - expected
    assert np.sqrt(np.mean(np.square(ours))) < 2 * np.sqrt(np.mean(np.square(xlas))) < 1e-5


@pytest.mark.parametrize("size", [1, 3])
def test_products_of_bfloat16_are_summed_in_float32(size: int) -> None:
    x, kernel = rng(2, 5, 7, 256).astype(jnp.bfloat16), rng(size, size, 256, 320).astype(jnp.bfloat16)
    call = PLAIN_CALL._replace(dtype=x.dtype, size=size, inputs=256)
    expected = direct(x.astype(jnp.float32), kernel.astype(jnp.float32), call)
    y = jax.jit(lambda x, kernel: by_products(x, neighbours(kernel), call))(x, kernel)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(jnp.float32), expected, rtol=2**-8, atol=2e-3)


def test_bands_hold_no_more_than_was_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    x, kernel = rng(1, 64, 64, 32), rng(3, 3, 32, 32)
    call = PLAIN_CALL._replace(inputs=32, outputs=32)

    def temporary() -> int:
        memory = compiled(PLAIN, call).lower(x, kernel).compile().memory_analysis()
        assert memory is not None
        return int(memory.temp_size_in_bytes)

    whole = temporary()
    monkeypatch.setattr(convolution, "MAX_TRANSFORMED", 2**16)
    assert temporary() < whole / 2


@pytest.mark.parametrize(
    ("change", "backend", "expected"),
    [
        ({}, "cpu", PLAIN.convolve),
        ({"upsampling": True, "inputs": 512, "outputs": 512}, "cpu", UPSAMPLED.convolve),
        ({"upsampling": True}, "cpu", folded),
        ({}, "tpu", direct),
        ({"upsampling": True}, "gpu", folded_outputs_first),
        ({"upsampling": True}, "tpu", dilated),
        ({"dtype": jnp.dtype("bfloat16")}, "cpu", by_products),
        ({"dtype": jnp.dtype("bfloat16"), "size": 1}, "cpu", by_products),
        ({"dtype": jnp.dtype("bfloat16"), "outputs": 64}, "cpu", direct),
        ({"dtype": jnp.dtype("bfloat16"), "stride": 2}, "cpu", direct),
        ({"dtype": jnp.dtype("bfloat16")}, "gpu", direct_outputs_first),
        ({"dtype": jnp.dtype("bfloat16"), "upsampling": True}, "cpu", folded),
        ({"inputs": 128}, "cpu", direct),
        ({"outputs": 4}, "cpu", direct),
        ({"stride": 2}, "cpu", direct),
        ({"size": 1}, "cpu", direct),
    ],
)
def test_the_table_takes_winograd_where_it_pays(change: dict[str, object], backend: str, expected: object) -> None:
    call = PLAIN_CALL._replace(**change)  # type: ignore[arg-type]
    assert choose(call, backend).convolve == expected


@pytest.mark.parametrize("backend", ["cpu", "gpu", "tpu"])
@pytest.mark.parametrize(("size", "stride"), [(3, 1), (3, 2), (1, 1)])
def test_a_layer_gives_the_same_on_each_backend(
    monkeypatch: pytest.MonkeyPatch, backend: str, size: int, stride: int
) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    conv, x, kernel = Conv(4, 6, size=size, stride=stride), rng(2, 7, 5, 4), rng(size, size, 4, 6)
    conv.kernel[...] = kernel
    expected = direct(x, kernel, PLAIN_CALL._replace(size=size, stride=stride))
    prepare_kernels(conv, jax.device_put)
    np.testing.assert_allclose(conv(x), expected, atol=1e-5)


@pytest.mark.parametrize("upsampling", [False, True])
@pytest.mark.parametrize("channels", [8, 512])
def test_a_prepared_layer_gives_the_same_bits(upsampling: bool, channels: int) -> None:
    conv, x = Conv(channels, channels, upsampling=upsampling), rng(1, 2, 3, channels)
    conv.kernel[...] = rng(3, 3, channels, channels)
    before = jax.jit(conv)(x)
    prepare_kernels(conv, partial(jax.tree.map, jnp.asarray))
    assert (conv.prepared is not None) == (upsampling or channels == 512)
    kept = conv.prepared is None or upsampling  # an odd size takes the kernel as it is
    assert hasattr(conv, "kernel") == kept, "a kernel that nothing takes any more is not kept beside it"
    assert np.array_equal(jax.jit(conv)(x), before)
