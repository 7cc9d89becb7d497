"""One attention for all parts. TABLE says which kernel computes it: by platform, dtype, head size and length.

Scores and softmax are float32 in every kernel.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from promptmill.worker.nn.products import sums_of

# Scores that XLA holds at a time, in elements of float32, by backend. 256 MiB: the VAE's 16384 x 16384 at 1024 pixels
# are 1 GiB. On a CPU 4 MiB, so that the softmax finds them in the cache: 2 to 3 times as fast (docs/performance.md).
MAX_SCORES = {"gpu": 2**26, "tpu": 2**26, "cpu": 2**20}
# Tokens that Pallas' kernel takes at a time, and from how many on it is the better one: by what XLA's compiler for TPUs
# schedules (benchmarks/ahead.py). Blocks of 128, the kernel's own default, take 4 times as long.
BLOCKS = (1024, 896, 768, 640, 512)
LEAST_TOKENS, LEAST_PADDED = 1024, 2048
LANES = 128
# Of a key that only fills a block. Times a scale of heads it is far below every score, and no infinity in bfloat16.
NO_KEY = -1e30

Kernel = Callable[..., Float[Array, "B Q N D"]]


class Call(NamedTuple):
    """What is known of an attention while it is traced."""

    dtype: jnp.dtype
    head_dim: int
    queries: int
    keys: int
    plain: bool
    """Neither causal nor with lengths."""


class Row(NamedTuple):
    """A kernel, and which calls it takes on which platform."""

    platform: str
    """As `jax.lax.platform_dependent` names it."""
    backend: str
    kernel: Kernel
    takes: Callable[[Call], bool]


@jax.named_scope("attention")
def attention(
    query: Float[Array, "B Q N D"],
    key: Float[Array, "B K N D"],
    value: Float[Array, "B K N D"],
    key_lengths: Int[Array, " B"] | None = None,
    *,
    causal: bool = False,
) -> Float[Array, "B Q N D"]:
    """Softmax attention scaled by `D ** -0.5`, N heads.

    `key_lengths` is how many of the first keys each row attends to, at least one; the rest might as well not be
    there. A length and no mask, because cuDNN skips what is too long and would read a mask as scores to add.
    """
    plain = key_lengths is None and not causal
    call = Call(query.dtype, query.shape[-1], query.shape[1], key.shape[1], plain)
    in_xla = partial(xla_attention, causal=causal)
    row = choose(call, jax.default_backend())
    if row is None:
        return in_xla(query, key, value, key_lengths)
    # A process with a GPU may yet compile for its CPU: `platform_dependent` decides that, when lowering.
    branches = {row.platform: partial(row.kernel, causal=causal)}
    return lax.platform_dependent(query, key, value, key_lengths, default=in_xla, **branches)


def choose(call: Call, backend: str) -> Row | None:
    """The first row of TABLE that takes the call on a backend (`jax.default_backend()`); None is XLA."""
    return next((row for row in TABLE if row.backend == backend and row.takes(call)), None)


def _cudnn(
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


def pallas_flash(
    query: Float[Array, "B Q N D"],
    key: Float[Array, "B K N D"],
    value: Float[Array, "B K N D"],
    key_lengths: None = None,
    *,
    causal: bool = False,
) -> Float[Array, "B Q N D"]:
    """Pallas' flash attention of TPUs; neither lengths nor causal.

    Where the tokens do not fill whole blocks, they are padded, and one more feature, 1 in each query, gives the keys
    that are no keys a score far below all others: a mask would take a third of the kernel's time again.
    """
    from jax.experimental.pallas.ops.tpu import flash_attention as pallas

    queries, head_dim = query.shape[1], query.shape[3]
    blocks = [_block(part.shape[1]) for part in (query, key)]
    padded = -query.shape[1] % blocks[0], -key.shape[1] % blocks[1]
    if any(padded):
        query = _filled(query, 1.0, padded[0], 1.0)
        key, value = _filled(key, 0.0, padded[1], NO_KEY), _filled(value, 0.0, padded[1], 0.0)
    sizes = pallas.BlockSizes(block_b=1, block_q=blocks[0], block_k_major=blocks[1], block_k=blocks[1])
    parts = (_heads_first(part) for part in (query, key, value))
    out = pallas.flash_attention(*parts, sm_scale=head_dim**-0.5, block_sizes=sizes)
    return _heads_first(out)[:, :queries, :, :head_dim]


def _block(length: int) -> int:
    """The block that leaves the least to pad, the largest of those."""
    return min(BLOCKS, key=lambda block: -(-length // block) * block)


def _filled(x: Float[Array, "B L N D"], feature: float, more: int, feature_of_more: float) -> Float[Array, "B M N E"]:
    """`more` tokens of zeros, and one more feature of each token, in whole vectors of 128 lanes."""
    lanes = -(x.shape[3] + 1) % LANES
    padded = jnp.pad(x, ((0, 0), (0, more), (0, 0), (0, 1 + lanes)))
    features = jnp.where(jnp.arange(padded.shape[1]) < x.shape[1], feature, feature_of_more).astype(x.dtype)
    return padded.at[..., x.shape[3]].set(features[None, :, None])


def xla_attention(
    query: Float[Array, "B Q N D"],
    key: Float[Array, "B K N D"],
    value: Float[Array, "B K N D"],
    key_lengths: Int[Array, " B"] | None,
    *,
    causal: bool,
) -> Float[Array, "B Q N D"]:
    """Plain products and a softmax, in chunks of queries where all scores at once would be too many."""
    query, key, value = (_heads_first(part) for part in (query, key, value))
    batch, heads, queries, _ = query.shape
    chunk = max(1, MAX_SCORES[jax.default_backend()] // (batch * heads * key.shape[2]))
    if causal or queries <= chunk:
        return _heads_first(_attend(query, key, value, _mask(queries, key.shape[2], key_lengths, causal)))
    # A query's result does not depend on its neighbours, so what is padded on is simply cut off again.
    chunks = -(-queries // chunk)
    chunk = -(-queries // chunks)  # all of one length, or most of the last would be padding
    padded = jnp.pad(query, ((0, 0), (0, 0), (0, chunks * chunk - queries), (0, 0)))
    # B N (S q) D -> S B N q D
    split = jnp.moveaxis(padded.reshape(batch, heads, chunks, chunk, -1), 2, 0)
    mask = _mask(1, key.shape[2], key_lengths, causal)
    out = lax.map(lambda part: _attend(part, key, value, mask), split)
    # S B N q D -> B (S q) N D
    return jnp.moveaxis(out, (0, 3), (1, 2)).reshape(batch, chunks * chunk, heads, -1)[:, :queries]


def _attend(
    query: Float[Array, "B N Q D"],
    key: Float[Array, "B N K D"],
    value: Float[Array, "B N K D"],
    mask: Bool[Array, "_ 1 _ K"] | None,
) -> Float[Array, "B N Q D"]:
    """With heads first both products are plain ones, and nothing as large as the scores is ever transposed."""
    heads = ((0, 1), (0, 1))
    scores = lax.dot_general(query, key, (((3,), (3,)), heads), preferred_element_type=jnp.float32)
    scores = scores * query.shape[-1] ** -0.5
    if mask is not None:
        scores = jnp.where(mask, scores, -jnp.inf)
    shares, sums = jax.nn.softmax(scores).astype(value.dtype), sums_of(value.dtype)
    return lax.dot_general(shares, value, (((3,), (2,)), heads), preferred_element_type=sums).astype(value.dtype)


def _mask(queries: int, keys: int, key_lengths: Int[Array, " B"] | None, causal: bool) -> Bool[Array, "_ 1 _ K"] | None:
    mask = None if key_lengths is None else (jnp.arange(keys)[None, :] < key_lengths[:, None])[:, None, None, :]
    if not causal:
        return mask
    below = jnp.tril(jnp.ones((queries, keys), bool))[None, None]
    return below if mask is None else below & mask


def _heads_first(x: Float[Array, "B L N D"]) -> Float[Array, "B N L D"]:
    """And back again."""
    return jnp.swapaxes(x, 1, 2)


def _fills_blocks(tokens: int) -> bool:
    """Whether there are enough for Pallas' kernel."""
    return tokens >= (LEAST_PADDED if tokens % _block(tokens) else LEAST_TOKENS)


def _is_half(call: Call) -> bool:
    return call.dtype in (jnp.bfloat16, jnp.float16)


TABLE: tuple[Row, ...] = (
    # cuDNN's fused kernel takes heads above 128 on Hopper only; the VAE's 512 it takes nowhere.
    Row("cuda", "gpu", _cudnn, lambda call: _is_half(call) and call.head_dim % 8 == 0 and call.head_dim <= 128),
    # Fewer tokens' scores fit into a TPU's vector memory, and there XLA's own is as fast.
    Row(
        "tpu",
        "tpu",
        pallas_flash,
        lambda call: (
            call.dtype == jnp.bfloat16
            and call.plain
            and call.head_dim <= LANES
            and _fills_blocks(min(call.queries, call.keys))
        ),
    ),
)
"""Kernels, the better first; what none takes is XLA's."""


def split_heads(x: Float[Array, "B L C"], heads: int) -> Float[Array, "B L N D"]:
    """B L (N D) -> B L N D."""
    return x.reshape(*x.shape[:2], heads, -1)


def join_heads(x: Float[Array, "B L N D"]) -> Float[Array, "B L C"]:
    """B L N D -> B L (N D)."""
    return x.reshape(*x.shape[:2], -1)
