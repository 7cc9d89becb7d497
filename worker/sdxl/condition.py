"""Windows of tokens to what the UNet attends to: long prompts behind one another, weighted words further from nothing.

The device's half of `prompts.py`, pure functions inside the compiled program. Sources and choices: docs/prompts.md.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def encode_windows(
    encoder: Any,
    ids: Int[Array, "B N K L"],
    layers_skipped: Int[Array, "B N"],
    weights: Float[Array, "B N K L"] | None = None,
    empty: Int[Array, "B N L"] | None = None,
) -> tuple[Float[Array, "B N KL D"], Float[Array, "B N P"]]:
    """Each window encoded by itself and put behind the last; the pooled vector is the first window's, unweighted.

    `weights` and `empty` go together: without them the empty window is not encoded, and all weights are one.
    """
    if weights is None or empty is None:
        hidden, pooled = _encode(encoder, ids, layers_skipped)
    else:
        # With the text in one batch: its own clip_skip for each, and no second copy of the encoder in the program.
        hidden, pooled = _encode(encoder, jnp.concatenate([ids, empty[:, :, None]], axis=2), layers_skipped)
        hidden = weight_context(hidden[:, :, :-1], weights, hidden[:, :, -1:])
    batch, passes, windows, length, _ = hidden.shape
    return hidden.reshape(batch, passes, windows * length, -1), pooled[:, :, 0]


def weight_context(
    context: Float[Array, "B N K L D"], weights: Float[Array, "B N K L"], empty: Float[Array, "B N 1 L D"]
) -> Float[Array, "B N K L D"]:
    """Each token's state as far from the empty text's, at the same place of a window, as its weight says.

    `empty + weight * (context - empty)`: ComfyUI's formula, and compel's for weights of at least one. In float32. A
    weight of one gives back the same bits.
    """
    each = weights.astype(jnp.float32)[..., None]
    start = empty.astype(jnp.float32)
    moved = start + each * (context.astype(jnp.float32) - start)
    return jnp.where(each == 1, context, moved.astype(context.dtype))


def used_keys(windows: Int[Array, "B N"], length: int) -> Int[Array, "B N"]:
    """How many tokens of the context each pass attends to: all windows of the longer of a job's passes.

    The shorter pass takes windows of the empty text instead, as in compel and A1111's web UI. What lies behind is
    there only because the program has room for it, so that an image does not depend on how much room there is.
    """
    longest = jnp.max(windows, axis=1, keepdims=True)
    return jnp.broadcast_to(longest, windows.shape).astype(jnp.int32) * length


def _encode(
    encoder: Any, ids: Int[Array, "B N K L"], layers_skipped: Int[Array, "B N"]
) -> tuple[Float[Array, "B N K L D"], Float[Array, "B N K P"]]:
    batch, passes, windows, length = ids.shape
    each_window = jnp.repeat(layers_skipped.reshape(-1), windows)
    hidden, pooled = encoder(ids.reshape(-1, length), each_window)  # B N K L -> (B N K) L
    shape = batch, passes, windows
    return hidden.reshape(*shape, length, -1), pooled.reshape(*shape, -1)
