"""Networks whose large kernels take one byte per number, each with a scale per output channel.

Only weights are rounded, when they are loaded (`checkpoint/rounding.py`). Products are of x as it is, in x's dtype, and
are scaled when they are made, which is the same sum as with a scaled kernel (`layers.py`, Product).
"""

from collections.abc import Collection

import jax.numpy as jnp
from flax import nnx

from promptmill.worker.nn.layers import Product
from promptmill.worker.quantization import FORMATS

LEAST_NUMBERS = 4096
"""In a kernel that is quantised. Only small models have smaller ones, whose bytes do not matter."""


def quantize(net: nnx.Module, name: str, *, kept: Collection[str]) -> None:
    """Make room for kernels in the format of this name, but not in small layers and in those below a name of `kept`."""
    for path, layer in nnx.iter_modules(net):
        if isinstance(layer, Product) and layer.kernel.size >= LEAST_NUMBERS and not set(kept) & set(path):
            layer.kernel = nnx.Param(jnp.zeros(layer.kernel.shape, FORMATS[name]))
            layer.kernel_scale = nnx.Param(jnp.zeros(layer.kernel.shape[-1]))
