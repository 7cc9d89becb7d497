"""The five layers that all parts are made of, NHWC and channels last.

Parameters are created as zeros, and only ever under `nnx.eval_shape`: their values come from a checkpoint.
Norms keep their statistics in float32 whatever the compute dtype, and subtract the mean before squaring.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int


def _row(vector: Float[Array, " C"], ndim: int) -> Float[Array, "... C"]:
    return vector.reshape((1,) * (ndim - 1) + (-1,))


class Linear(nnx.Module):
    """`x @ kernel + bias` over the last axis."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True) -> None:
        self.kernel = nnx.Param(jnp.zeros((inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs)) if bias else None

    def __call__(self, x: Float[Array, "... I"]) -> Float[Array, "... O"]:
        y = jnp.einsum("...i,io->...o", x, self.kernel[...])
        return y if self.bias is None else y + _row(self.bias[...], y.ndim)


class Conv(nnx.Module):
    """A square convolution, kernel HWIO, padded alike on all sides as PyTorch pads."""

    def __init__(self, inputs: int, outputs: int, *, size: int = 3, stride: int = 1) -> None:
        self.kernel = nnx.Param(jnp.zeros((size, size, inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))
        self.stride = stride

    def __call__(self, x: Float[Array, "B H W I"]) -> Float[Array, "B H2 W2 O"]:
        kernel = self.kernel[...]
        y = _convolve(x, kernel, stride=self.stride, pad=kernel.shape[0] // 2)
        return y + _row(self.bias[...], y.ndim)

    def upsampled(self, x: Float[Array, "B H W I"], folded: Float[Array, "2 2 I O4"]) -> Float[Array, "B H2 W2 O"]:
        """This, of `upsample_2x(x)`, in 4 multiplications for its 9. `folded`: `fold_upsampling(self.kernel)`."""
        batch, height, width, _ = x.shape
        # Every window of 2 x 2 gives all four pixels; each is wanted of the window that lies its way.
        windows = jnp.split(_convolve(x, folded, stride=1, pad=1), 4, axis=-1)
        rows = [_beside(windows[:2], 0, height, width), _beside(windows[2:], 1, height, width)]
        # B H 2 W 2 O -> B (H 2) (W 2) O
        y = jnp.stack(rows, axis=2).reshape(batch, 2 * height, 2 * width, -1)
        return y + _row(self.bias[...], y.ndim)


def _convolve(
    x: Float[Array, "B H W I"], kernel: Float[Array, "K K I O"], *, stride: int, pad: int
) -> Float[Array, "B H2 W2 O"]:
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=((pad, pad), (pad, pad)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


class LayerNorm(nnx.Module):
    """Normalises the last axis."""

    def __init__(self, width: int, *, eps: float) -> None:
        self.scale = nnx.Param(jnp.zeros(width))
        self.bias = nnx.Param(jnp.zeros(width))
        self.eps = eps

    def __call__(self, x: Float[Array, "... C"]) -> Float[Array, "... C"]:
        y = _standardise(x.astype(jnp.float32), axes=(-1,), eps=self.eps)
        return _scale_and_shift(y, self.scale[...], self.bias[...]).astype(x.dtype)


class GroupNorm(nnx.Module):
    """Normalises each group of channels over all positions of one image."""

    def __init__(self, width: int, *, groups: int, eps: float) -> None:
        self.scale = nnx.Param(jnp.zeros(width))
        self.bias = nnx.Param(jnp.zeros(width))
        self.groups = groups
        self.eps = eps

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        batch, height, width, channels = x.shape
        # B H W (G c) -> B H W G c
        grouped = x.astype(jnp.float32).reshape(batch, height, width, self.groups, channels // self.groups)
        y = _standardise(grouped, axes=(1, 2, 4), eps=self.eps).reshape(x.shape)
        return _scale_and_shift(y, self.scale[...], self.bias[...]).astype(x.dtype)


def _standardise(x: Float[Array, "..."], *, axes: tuple[int, ...], eps: float) -> Float[Array, "..."]:
    centred = x - jnp.mean(x, axis=axes, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=axes, keepdims=True)
    return centred * lax.rsqrt(variance + eps)


def _scale_and_shift(
    x: Float[Array, "... C"], scale: Float[Array, " C"], bias: Float[Array, " C"]
) -> Float[Array, "... C"]:
    return x * _row(scale.astype(x.dtype), x.ndim) + _row(bias.astype(x.dtype), x.ndim)


class Embedding(nnx.Module):
    """A row of the table for each index."""

    def __init__(self, rows: int, width: int) -> None:
        self.embedding = nnx.Param(jnp.zeros((rows, width)))

    def __call__(self, indices: Int[Array, "..."]) -> Float[Array, "... C"]:
        return jnp.take(self.embedding[...], indices, axis=0)


def upsample_2x(x: Float[Array, "B H W C"]) -> Float[Array, "B 2*H 2*W C"]:
    """Each pixel four times (nearest neighbour)."""
    batch, height, width, channels = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None, :], (batch, height, 2, width, 2, channels))
    return x.reshape(batch, 2 * height, 2 * width, channels)


def fold_upsampling(kernel: Float[Array, "3 3 I O"]) -> Float[Array, "2 2 I 4*O"]:
    """The kernel that `Conv.upsampled` takes: one of 2 x 2 for each of the four pixels that a pixel becomes.

    Of three neighbours in an upsampled image two are the same pixel, whose weights are added here, once.
    """
    first, second = _folded(kernel, axis=0)
    return jnp.concatenate([*_folded(first, axis=1), *_folded(second, axis=1)], axis=-1)


def _folded(kernel: Float[Array, "..."], *, axis: int) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    before, at, after = jnp.split(kernel, 3, axis)
    return jnp.concatenate([before, at + after], axis), jnp.concatenate([before + at, after], axis)


def _beside(windows: list[Float[Array, "B H1 W1 O"]], row: int, height: int, width: int) -> Float[Array, "B H W 2 O"]:
    return jnp.stack([each[:, row : row + height, at : at + width] for at, each in enumerate(windows)], axis=3)


def quick_gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The sigmoid approximation that OpenAI trained CLIP with."""
    return x * jax.nn.sigmoid(1.702 * x)


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The exact one, by the error function; PyTorch's default, but not JAX's."""
    return jax.nn.gelu(x, approximate=False)
