"""One attention for all parts: cuDNN's flash kernel where there is one, else XLA in bounded memory."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

# Scores held at a time, in elements of float32: 256 MiB. The VAE's 16384 x 16384 at 1024 pixels are 1 GiB.
MAX_SCORES = 2**26
# cuDNN's fused kernel takes more on Hopper only; the VAE's 512 it takes nowhere.
MAX_CUDNN_HEAD_DIM = 128


def attention(
    query: Float[Array, "B Q N D"],
    key: Float[Array, "B K N D"],
    value: Float[Array, "B K N D"],
    key_lengths: Int[Array, " B"] | None = None,
    *,
    causal: bool = False,
) -> Float[Array, "B Q N D"]:
    """Softmax attention scaled by `D ** -0.5`, N heads; scores and softmax are float32.

    `key_lengths` is how many of the first keys each row attends to, at least one; the rest might as well not be
    there. A length and no mask, because cuDNN skips what is too long and would read a mask as scores to add.
    """
    in_xla = partial(_xla_attention, causal=causal)
    if not _cudnn_takes(query):
        return in_xla(query, key, value, key_lengths)
    flash = partial(_cudnn_attention, causal=causal)
    return lax.platform_dependent(query, key, value, key_lengths, cuda=flash, default=in_xla)


def _cudnn_takes(query: Float[Array, "B Q N D"]) -> bool:
    # A process with a GPU may yet compile for its CPU: `platform_dependent` decides that, when lowering.
    head_dim = query.shape[-1]
    half = query.dtype in (jnp.bfloat16, jnp.float16)
    return jax.default_backend() == "gpu" and half and head_dim % 8 == 0 and head_dim <= MAX_CUDNN_HEAD_DIM


def _cudnn_attention(
    query: Float[Array, "B Q N D"],
    key: Float[Array, "B K N D"],
    value: Float[Array, "B K N D"],
    key_lengths: Int[Array, " B"] | None,
    *,
    causal: bool,
) -> Float[Array, "B Q N D"]:
    return jax.nn.dot_product_attention(
        query, key, value, is_causal=causal, key_value_seq_lengths=key_lengths, implementation="cudnn"
    )


def _xla_attention(
    query: Float[Array, "B Q N D"],
    key: Float[Array, "B K N D"],
    value: Float[Array, "B K N D"],
    key_lengths: Int[Array, " B"] | None,
    *,
    causal: bool,
) -> Float[Array, "B Q N D"]:
    attend = partial(
        jax.nn.dot_product_attention, is_causal=causal, key_value_seq_lengths=key_lengths, implementation="xla"
    )
    batch, queries, heads, _ = query.shape
    chunk = max(1, MAX_SCORES // (batch * heads * key.shape[1]))
    if causal or queries <= chunk:
        return attend(query, key, value)
    # A query's result does not depend on its neighbours, so what is padded on is simply cut off again.
    chunks = -(-queries // chunk)
    chunk = -(-queries // chunks)  # all of one length, or most of the last would be padding
    padded = jnp.pad(query, ((0, 0), (0, chunks * chunk - queries), (0, 0), (0, 0)))
    # B (S q) N D -> S B q N D
    split = jnp.moveaxis(padded.reshape(batch, chunks, chunk, *query.shape[2:]), 1, 0)
    out = lax.map(lambda part: attend(part, key, value), split)
    # S B q N D -> B (S q) N D
    return jnp.moveaxis(out, 0, 1).reshape(padded.shape)[:, :queries]


def split_heads(x: Float[Array, "B L C"], heads: int) -> Float[Array, "B L N D"]:
    """B L (N D) -> B L N D."""
    return x.reshape(*x.shape[:2], heads, -1)


def join_heads(x: Float[Array, "B L N D"]) -> Float[Array, "B L C"]:
    """B L N D -> B L (N D)."""
    return x.reshape(*x.shape[:2], -1)
