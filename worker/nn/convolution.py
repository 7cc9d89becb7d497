"""One convolution for all parts. TABLE says which algorithm computes it: by backend, dtype and channels.

Each takes its kernel in a form of its own, which `prepare` makes once, when a model is loaded. The kernel itself is
HWIO, x is NHWC.
"""

import operator
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from promptmill.worker.nn.products import sums_of

# Below, adding up what goes in and comes out takes as long as the multiplications that it saves (docs/performance.md).
WINOGRAD_CHANNELS, WINOGRAD_UPSAMPLING_CHANNELS = 256, 512
# As many for products of bfloat16.
PRODUCT_CHANNELS = 256
# Numbers that Winograd's transforms of one band of rows may hold: 64 MiB of float32.
MAX_TRANSFORMED = 2**24

Prepared = Any  # arrays in tuples, as the algorithm wants them


class Call(NamedTuple):
    """What is known of a convolution before it sees an image."""

    dtype: jnp.dtype
    size: int
    inputs: int
    outputs: int
    stride: int
    upsampling: bool
    """Of the image at twice its size (nearest neighbour), which no algorithm needs to make."""


class Row(NamedTuple):
    """An algorithm, and which calls it takes on which backend (`jax.default_backend()`; None is each)."""

    backend: str | None
    takes: Callable[[Call], bool]
    prepare: Callable[[Any], Prepared] | None
    """From a kernel K K I O, of JAX or of NumPy. None: it takes the kernel as it is."""
    convolve: Callable[[Float[Array, "B H W I"], Prepared, Call], Float[Array, "B H2 W2 O"]]


def choose(call: Call, backend: str) -> Row:
    """The first row of TABLE that takes the call."""
    return next(row for row in TABLE if row.backend in (None, backend) and row.takes(call))


def direct(x: Float[Array, "B H W I"], kernel: Float[Array, "K K I O"], call: Call) -> Float[Array, "B H2 W2 O"]:
    """XLA's own, padded alike on all sides as PyTorch pads."""
    return _convolve(x, kernel, stride=call.stride, pad=call.size // 2)


def outputs_first(kernel: Float[Any, "K K I O"]) -> Float[Any, "O K K I"]:
    """The kernel as cuDNN takes it beside NHWC; XLA would turn it in each call of a program."""
    return kernel.transpose(3, 0, 1, 2)


def direct_outputs_first(
    x: Float[Array, "B H W I"], kernel: Float[Array, "O K K I"], call: Call
) -> Float[Array, "B H2 W2 O"]:
    """`direct`, of such a kernel."""
    return _convolve(x, kernel, stride=call.stride, pad=call.size // 2, layout="OHWI")


def upsample_2x(x: Float[Array, "B H W C"]) -> Float[Array, "B 2*H 2*W C"]:
    """Each pixel four times (nearest neighbour)."""
    batch, height, width, channels = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None, :], (batch, height, 2, width, 2, channels))
    return x.reshape(batch, 2 * height, 2 * width, channels)


def fold_upsampling(kernel: Float[Any, "3 3 I O"]) -> Float[Any, "2 2 I 4*O"]:
    """The kernel that `folded` takes: one of 2 x 2 for each of the four pixels that a pixel becomes.

    Of three neighbours in an upsampled image two are the same pixel, whose weights are added here, once.
    """
    first, second = _folded(kernel, axis=0)
    parts = [*_folded(first, axis=1), *_folded(second, axis=1)]
    return kernel.__array_namespace__().concatenate(parts, axis=-1)


def folded(x: Float[Array, "B H W I"], kernel: Float[Array, "2 2 I O4"], call: Call) -> Float[Array, "B H2 W2 O"]:
    """The convolution of `upsample_2x(x)`, in 4 multiplications for its 9."""
    return _unfolded(_convolve(x, kernel, stride=1, pad=1), x)


def fold_outputs_first(kernel: Float[Any, "3 3 I O"]) -> Float[Any, "O4 2 2 I"]:
    """The kernel that `folded_outputs_first` takes."""
    return outputs_first(fold_upsampling(kernel))


def folded_outputs_first(
    x: Float[Array, "B H W I"], kernel: Float[Array, "O4 2 2 I"], call: Call
) -> Float[Array, "B H2 W2 O"]:
    """`folded`, of a kernel with its outputs first."""
    return _unfolded(_convolve(x, kernel, stride=1, pad=1, layout="OHWI"), x)


def _unfolded(y: Float[Array, "B H1 W1 O4"], x: Float[Array, "B H W I"]) -> Float[Array, "B H2 W2 O"]:
    batch, height, width, _ = x.shape
    # Every window of 2 x 2 gives all four pixels; each is wanted of the window that lies its way.
    windows = jnp.split(y, 4, axis=-1)
    rows = [_beside(windows[:2], 0, height, width), _beside(windows[2:], 1, height, width)]
    # B H 2 W 2 O -> B (H 2) (W 2) O
    return jnp.stack(rows, axis=2).reshape(batch, 2 * height, 2 * width, -1)


def widen_upsampling(kernel: Float[Any, "3 3 I O"]) -> Float[Any, "4 4 I O"]:
    """The kernel that `dilated` takes: of each of the four pixels that a pixel becomes, at their places, added."""
    arrays = kernel.__array_namespace__()
    exact = kernel.astype(np.float32)
    shifts = [((1 - down, down), (1 - right, right), (0, 0), (0, 0)) for down in (0, 1) for right in (0, 1)]
    return reduce(operator.add, [arrays.pad(exact, shift) for shift in shifts]).astype(kernel.dtype)


def dilated(x: Float[Array, "B H W I"], kernel: Float[Array, "4 4 I O"], call: Call) -> Float[Array, "B H2 W2 O"]:
    """The convolution of `upsample_2x(x)`, as one of x with zeros between its pixels, which a TPU does not multiply."""
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(1, 1),
        padding=((2, 2), (2, 2)),
        lhs_dilation=(2, 2),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def neighbours(kernel: Float[Any, "K K I O"]) -> Prepared:
    """The kernel that `by_products` takes: a tuple of rows, each a tuple of matrices."""
    return tuple(tuple(row) for row in kernel)


def by_products(x: Float[Array, "B H W I"], kernel: Prepared, call: Call) -> Float[Array, "B H W O"]:
    """A product of matrices for each neighbour; a convolution of bfloat16 XLA computes on a CPU by way of float32."""
    _, height, width, _ = x.shape
    pad = (call.size // 2,) * 2
    padded = jnp.pad(x, ((0, 0), pad, pad, (0, 0)))
    products = (
        jnp.matmul(padded[:, down : down + height, right : right + width], tap, preferred_element_type=sums_of(x.dtype))
        for down, row in enumerate(kernel)
        for right, tap in enumerate(row)
    )
    return reduce(operator.add, products).astype(x.dtype)


class Winograd(NamedTuple):
    """Two neighbouring pixels of the result from a window of x, along one axis: `result @ (kernel @ k * data @ x)`.

    Along both axes that is `len(data) ** 2` multiplications for 4 pixels: 16, where a 3 x 3 kernel takes 36.
    Source: Lavin and Gray 2015 (arXiv 1509.09308), F(2 x 2, 3 x 3). Exact but for rounding, which is float32's own.
    """

    step: int
    """Pixels of x from one window to the next."""
    data: tuple[tuple[int, ...], ...]
    kernel: tuple[tuple[float, ...], ...]
    result: tuple[tuple[int, ...], ...]

    def prepare(self, kernel: Float[Any, "3 3 I O"]) -> Prepared:
        """The kernel's products by tap: a tuple of rows, each a tuple of matrices."""
        rows = _combine(self.kernel, list(kernel))
        return tuple(tuple(_combine(self.kernel, list(row))) for row in rows)

    def convolve(self, x: Float[Array, "B H W I"], taps: Prepared, call: Call) -> Float[Array, "B H2 W2 O"]:
        """In bands of rows, where the transforms of all rows at once would be too large."""
        batch, height, width, inputs = x.shape
        down, across = -(-height // self.step), -(-width // self.step)
        of_a_row = len(self.data) ** 2 * batch * across * (inputs + call.outputs)
        bands = -(-down // max(1, MAX_TRANSFORMED // of_a_row))
        rows = -(-down // bands)
        y = self._in_bands(self._pad(x, bands * rows, across), taps, bands, (rows, across))
        scale = 2 // self.step
        return y[:, : scale * height, : scale * width]

    def _pad(self, x: Float[Array, "B H W I"], down: int, across: int) -> Float[Array, "B H1 W1 I"]:
        """One pixel before, and what the last windows reach over behind."""
        behind = (self._extent(windows) - 1 - size for windows, size in zip((down, across), x.shape[1:3], strict=True))
        return jnp.pad(x, ((0, 0), *((1, each) for each in behind), (0, 0)))

    def _extent(self, windows: int) -> int:
        return (windows - 1) * self.step + len(self.data[0])

    def _in_bands(
        self, x: Float[Array, "B H W I"], taps: Prepared, bands: int, windows: tuple[int, int]
    ) -> Float[Array, "B H2 W2 O"]:
        if bands == 1:
            return self._tiles(x, taps, windows)
        rows, across = windows
        outputs = taps[0][0].shape[1]

        def add_band(index: Int[Array, ""], y: Float[Array, "B H2 W2 O"]) -> Float[Array, "B H2 W2 O"]:
            band = lax.dynamic_slice_in_dim(x, index * rows * self.step, self._extent(rows), axis=1)
            return lax.dynamic_update_slice_in_dim(y, self._tiles(band, taps, windows), index * 2 * rows, axis=1)

        return lax.fori_loop(0, bands, add_band, jnp.zeros((len(x), bands * 2 * rows, 2 * across, outputs), x.dtype))

    def _tiles(self, x: Float[Array, "B H W I"], taps: Prepared, windows: tuple[int, int]) -> Float[Array, "B H2 W2 O"]:
        """Multiply tap by tap: each product is one of matrices, all windows by all channels."""
        down, across = windows
        rows = zip(self._along(x, 1, down), taps, strict=True)
        products = [[part @ tap for part, tap in zip(self._along(row, 2, across), t, strict=True)] for row, t in rows]
        columns = zip(*(_combine(self.result, row) for row in products), strict=True)
        # two columns of two rows of B h w O -> B (h 2) (w 2) O
        y = jnp.stack([jnp.stack(_combine(self.result, column), axis=2) for column in columns], axis=4)
        return y.reshape(x.shape[0], 2 * down, 2 * across, -1)

    def _along(self, x: Float[Array, "B h w I"], axis: int, windows: int) -> list[Float[Array, "B _ _ I"]]:
        """The data's transform along one axis: an array for each tap."""
        last = (windows - 1) * self.step + 1
        pixels = [lax.slice_in_dim(x, at, at + last, self.step, axis) for at in range(len(self.data[0]))]
        return _combine(self.data, pixels)


PLAIN = Winograd(
    step=2,
    data=((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
    kernel=((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1)),
    result=((1, 1, 1, 0), (0, 1, -1, -1)),
)

# A window of an upsampled image is (a, b, b, c): one of the four differences is 0, and its product is left out.
UPSAMPLED = Winograd(
    step=1,
    data=((1, -1, 0), (0, 1, 0), (0, 1, -1)),
    kernel=((1, 0, 0), (1, 1, 1), (0, 0, 1)),
    result=((1, 1, 0), (0, 1, -1)),
)


def _combine(matrix: Sequence[Sequence[float]], parts: Sequence[Any]) -> list[Any]:
    """`matrix @ parts`, without what is multiplied by 0."""
    return [_sum(row, parts) for row in matrix]


def _sum(factors: Sequence[float], parts: Sequence[Any]) -> Any:
    scaled = (part if factor == 1 else factor * part for factor, part in zip(factors, parts, strict=True) if factor)
    return reduce(operator.add, scaled)


def _convolve(
    x: Float[Array, "B H W I"], kernel: Float[Array, "_ _ _ _"], *, stride: int, pad: int, layout: str = "HWIO"
) -> Float[Array, "B H2 W2 O"]:
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=((pad, pad), (pad, pad)),
        dimension_numbers=("NHWC", layout, "NHWC"),
    )


def _folded(kernel: Float[Any, "..."], *, axis: int) -> tuple[Float[Any, "..."], Float[Any, "..."]]:
    arrays = kernel.__array_namespace__()  # NumPy, or jax.numpy
    before, at, after = arrays.split(kernel, 3, axis)
    return arrays.concatenate([before, at + after], axis), arrays.concatenate([before + at, after], axis)


def _beside(windows: list[Float[Array, "B H1 W1 O"]], row: int, height: int, width: int) -> Float[Array, "B H W 2 O"]:
    return jnp.stack([each[:, row : row + height, at : at + width] for at, each in enumerate(windows)], axis=3)


def _suits_winograd(call: Call) -> bool:
    """Half precision would lose bits in the transforms; accelerators have faster ways to multiply."""
    least = WINOGRAD_UPSAMPLING_CHANNELS if call.upsampling else WINOGRAD_CHANNELS
    shape = call.size == 3 and call.stride == 1 and min(call.inputs, call.outputs) >= least
    return shape and call.dtype == jnp.float32


def _suits_products(call: Call) -> bool:
    enough = min(call.inputs, call.outputs) >= PRODUCT_CHANNELS
    return call.dtype == jnp.bfloat16 and call.stride == 1 and not call.upsampling and enough


TABLE: tuple[Row, ...] = (
    Row("cpu", lambda call: _suits_winograd(call) and not call.upsampling, PLAIN.prepare, PLAIN.convolve),
    Row("cpu", lambda call: _suits_winograd(call) and call.upsampling, UPSAMPLED.prepare, UPSAMPLED.convolve),
    Row("cpu", _suits_products, neighbours, by_products),
    Row("tpu", lambda call: call.upsampling, widen_upsampling, dilated),
    Row("gpu", lambda call: call.upsampling, fold_outputs_first, folded_outputs_first),
    Row("gpu", lambda call: True, outputs_first, direct_outputs_first),
    Row(None, lambda call: call.upsampling, fold_upsampling, folded),
    Row(None, lambda call: True, None, direct),
)
"""Algorithms, the better first."""
