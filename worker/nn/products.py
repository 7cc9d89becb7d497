"""What products of matrices are summed up in."""

import jax
import jax.numpy as jnp


def sums_of(dtype: jnp.dtype) -> jnp.dtype | None:
    """The `preferred_element_type` of products of this dtype; None is XLA's own choice.

    A TPU and a GPU sum up bfloat16 in float32 by themselves. On a CPU XLA has to be asked, or it makes float32 of both
    sides first. Asked, it takes the processor's own instructions where it has them (AMX): docs/performance.md.
    """
    return jnp.dtype("float32") if dtype == jnp.bfloat16 and jax.default_backend() == "cpu" else None
