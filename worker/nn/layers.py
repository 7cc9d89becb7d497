"""The five layers that all parts are made of, NHWC and channels last.

Parameters are created as zeros, and only ever under `nnx.eval_shape`: their values come from a checkpoint.
Norms keep their statistics in float32 whatever the compute dtype, and subtract the mean before squaring.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int

from promptmill.worker.nn.convolution import Call, Prepared, Row, choose, direct
from promptmill.worker.nn.products import sums_of


def _row(vector: Float[Array, " C"], ndim: int) -> Float[Array, "... C"]:
    return vector.reshape((1,) * (ndim - 1) + (-1,))


class Linear(nnx.Module):
    """`x @ kernel + bias` over the last axis."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True) -> None:
        self.kernel = nnx.Param(jnp.zeros((inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs)) if bias else None

    def __call__(self, x: Float[Array, "... I"]) -> Float[Array, "... O"]:
        kernel = self.kernel[...]
        y = jnp.einsum("...i,io->...o", x, kernel, preferred_element_type=sums_of(x.dtype)).astype(x.dtype)
        return y if self.bias is None else y + _row(self.bias[...], y.ndim)


class Conv(nnx.Module):
    """A square convolution, kernel HWIO, padded alike on all sides as PyTorch pads."""

    def __init__(self, inputs: int, outputs: int, *, size: int = 3, stride: int = 1, upsampling: bool = False) -> None:
        self.kernel = nnx.Param(jnp.zeros((size, size, inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))
        self.stride = stride
        self.upsampling = upsampling
        """Of `upsample_2x(x)`."""
        self.prepared: Prepared | None = nnx.data(None)

    def prepare(self) -> None:
        """Bring the kernel into the form that `__call__` works with; without this each call does."""
        self.prepared = self._algorithm().prepare(self.kernel[...])

    def __call__(self, x: Float[Array, "B H W I"]) -> Float[Array, "B H2 W2 O"]:
        algorithm = self._algorithm()
        kernel = algorithm.prepare(self.kernel[...]) if self.prepared is None else self.prepared
        y = algorithm.convolve(x, kernel, self._known())
        return y + _row(self.bias[...], y.ndim)

    def directly(self, x: Float[Array, "B H W I"]) -> Float[Array, "B H W O"]:
        """Of x as it is, also where this is one of `upsample_2x(x)`."""
        y = direct(x, self.kernel[...], self._known())
        return y + _row(self.bias[...], y.ndim)

    def _algorithm(self) -> Row:
        return choose(self._known(), jax.default_backend())

    def _known(self) -> Call:
        kernel = self.kernel[...]
        size, _, inputs, outputs = kernel.shape
        return Call(kernel.dtype, size, inputs, outputs, self.stride, self.upsampling)


def prepare_kernels(net: nnx.Module) -> None:
    """Prepare all of a network's kernels here, outside of the loops in which it is called."""
    for conv in convolutions(net):
        conv.prepare()


def convolutions(net: nnx.Module) -> list[Conv]:
    return [module for _, module in nnx.iter_modules(net) if isinstance(module, Conv)]


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


def quick_gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The sigmoid approximation that OpenAI trained CLIP with."""
    return x * jax.nn.sigmoid(1.702 * x)


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The exact one, by the error function; PyTorch's default, but not JAX's."""
    return jax.nn.gelu(x, approximate=False)
