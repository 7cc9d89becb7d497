"""The five layers that all parts are made of, NHWC and channels last.

Parameters are created as zeros, and only ever under `nnx.eval_shape`: their values come from a checkpoint.
Norms keep their statistics in float32 whatever the compute dtype (`statistics.py`). Each layer's operations stand in a
scope of its kind (`linear`, `conv`, `norm`; `attention` in attention.py), by which a profile or a compiled program can
be read.
"""

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int

from promptmill.worker.nn.convolution import Call, Prepared, Row, choose, direct
from promptmill.worker.nn.products import sums_of
from promptmill.worker.nn.statistics import moments, over_channels

# Each holds one kernel's arrays on the host.
_THREADS = 4

Put = Callable[[Any], Any]
"""From arrays of the host, in tuples, to the same on the devices."""


def _row(vector: Float[Array, " C"], ndim: int) -> Float[Array, "... C"]:
    return vector.reshape((1,) * (ndim - 1) + (-1,))


class Product(nnx.Module):
    """What multiplies x by a kernel, outputs last; the kernel may be quantised (`quantize.py`)."""

    def __init__(self, shape: tuple[int, ...], *, bias: bool) -> None:
        self.kernel = nnx.Param(jnp.zeros(shape))
        self.bias = nnx.Param(jnp.zeros(shape[-1])) if bias else None
        self.kernel_scale: nnx.Param | None = nnx.data(None)
        """Of each output, where the kernel is quantised."""

    def _operands(self, x: Float[Array, "... I"]) -> tuple[Float[Array, "... I"], Float[Array, "... I O"]]:
        """x, and the kernel in its dtype.

        A quantised kernel is converted at each use, and only then: XLA would convert all of them before the loop over
        the steps, and hold both. The barrier makes the kernel one of the values that a step computes.
        """
        if self.kernel_scale is None:
            return x, self.kernel[...]
        x, kernel = lax.optimization_barrier((x, self.kernel[...]))
        return x, kernel.astype(x.dtype)

    def _finish(self, y: Float[Array, "... O"]) -> Float[Array, "... O"]:
        """The product's scale and bias."""
        if self.kernel_scale is not None:
            y = (y * _row(self.kernel_scale[...], y.ndim)).astype(y.dtype)
        return y if self.bias is None else y + _row(self.bias[...], y.ndim)


class Linear(Product):
    """`x @ kernel + bias` over the last axis."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True) -> None:
        super().__init__((inputs, outputs), bias=bias)

    @jax.named_scope("linear")
    def __call__(self, x: Float[Array, "... I"]) -> Float[Array, "... O"]:
        x, kernel = self._operands(x)
        return self._finish(
            jnp.einsum("...i,io->...o", x, kernel, preferred_element_type=sums_of(x.dtype)).astype(x.dtype)
        )


class Conv(Product):
    """A square convolution, kernel HWIO, padded alike on all sides as PyTorch pads."""

    bias: nnx.Param

    def __init__(self, inputs: int, outputs: int, *, size: int = 3, stride: int = 1, upsampling: bool = False) -> None:
        super().__init__((size, size, inputs, outputs), bias=True)
        self.size, self.inputs, self.outputs = size, inputs, outputs
        self.stride = stride
        self.upsampling = upsampling
        """Of `upsample_2x(x)`."""
        self.prepared: nnx.Param | None = nnx.data(None)

    def prepare(self, put: Put) -> None:
        """Keep the kernel in the form that `__call__` works with; without this each call makes it.

        A quantised kernel stays as it is: it would not be small any more.
        """
        prepare = self._algorithm().prepare
        if prepare is None or self.kernel_scale is not None:
            return
        self.prepared = nnx.Param(put(prepare(np.asarray(self.kernel[...]))))
        if not self.upsampling:  # `directly` takes it as it is
            del self.kernel

    @jax.named_scope("conv")
    def __call__(self, x: Float[Array, "B H W I"]) -> Float[Array, "B H2 W2 O"]:
        x, kernel = self._taken(x)
        return self._finish(self._algorithm().convolve(x, kernel, self._known()))

    @jax.named_scope("conv")
    def directly(self, x: Float[Array, "B H W I"]) -> Float[Array, "B H W O"]:
        """Of x as it is, also where this is one of `upsample_2x(x)`."""
        x, kernel = self._operands(x)
        return self._finish(direct(x, kernel, self._known()))

    def _taken(self, x: Float[Array, "B H W I"]) -> tuple[Float[Array, "B H W I"], Prepared]:
        """x, and the kernel in the form that the algorithm takes."""
        if self.prepared is not None:
            return x, self.prepared.get_value()
        x, kernel = self._operands(x)
        prepare = self._algorithm().prepare
        return x, kernel if prepare is None else prepare(kernel)

    @property
    def dtype(self) -> jnp.dtype:
        """What it computes in."""
        return self.bias[...].dtype

    def _algorithm(self) -> Row:
        return choose(self._known(), jax.default_backend())

    def _known(self) -> Call:
        return Call(self.dtype, self.size, self.inputs, self.outputs, self.stride, self.upsampling)


def prepare_kernels(net: nnx.Module, put: Put) -> None:
    """Bring all of a network's kernels into the form that its products take, on the host; `put` them on the devices."""
    with ThreadPoolExecutor(_THREADS) as threads:
        deque(threads.map(lambda conv: conv.prepare(put), convolutions(net)), 0)


def with_prepared_kernels(graph: nnx.GraphDef, state: nnx.State, put: Put) -> tuple[nnx.GraphDef, nnx.State]:
    """A network with its kernels prepared."""
    net = nnx.merge(graph, state)
    prepare_kernels(net, put)
    prepared, weights = nnx.split(net)
    return prepared, weights


def convolutions(net: nnx.Module) -> list[Conv]:
    return [module for _, module in nnx.iter_modules(net) if isinstance(module, Conv)]


class LayerNorm(nnx.Module):
    """Normalises the last axis."""

    def __init__(self, width: int, *, eps: float) -> None:
        self.scale = nnx.Param(jnp.zeros(width))
        self.bias = nnx.Param(jnp.zeros(width))
        self.eps = eps

    @jax.named_scope("norm")
    def __call__(self, x: Float[Array, "... C"]) -> Float[Array, "... C"]:
        mean, variance = over_channels(x)
        y = (x.astype(jnp.float32) - mean) * lax.rsqrt(variance + self.eps)
        return _scale_and_shift(y, self.scale[...], self.bias[...]).astype(x.dtype)


class GroupNorm(nnx.Module):
    """Normalises each group of channels over all positions of one image."""

    def __init__(self, width: int, *, groups: int, eps: float) -> None:
        self.scale = nnx.Param(jnp.zeros(width))
        self.bias = nnx.Param(jnp.zeros(width))
        self.groups = groups
        self.eps = eps

    @jax.named_scope("norm")
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        return self._in_float32(x).astype(x.dtype)

    @jax.named_scope("norm")
    def silu(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """SiLU of the normalised, rounded once."""
        return jax.nn.silu(self._in_float32(x)).astype(x.dtype)

    def _in_float32(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        batch, height, width, channels = x.shape
        mean, variance = moments(x, self.groups)
        # B H W (G c) -> B H W G c
        grouped = x.astype(jnp.float32).reshape(batch, height, width, self.groups, channels // self.groups)
        y = ((grouped - mean) * lax.rsqrt(variance + self.eps)).reshape(x.shape)
        return _scale_and_shift(y, self.scale[...], self.bias[...])


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


def quick_gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The sigmoid approximation that OpenAI trained CLIP with."""
    return x * jax.nn.sigmoid(1.702 * x)


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The exact one, by the error function; PyTorch's default, but not JAX's."""
    return jax.nn.gelu(x, approximate=False)
