"""The UNet's transformer: self-attention over the pixels, cross-attention to the text, and a gated MLP."""

from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from promptmill.worker.nn.attention import attention, join_heads, split_heads
from promptmill.worker.nn.layers import Conv, GroupNorm, LayerNorm, Linear, gelu

# Not the configuration's norm_eps: diffusers' Transformer2DModel and BasicTransformerBlock have their own.
GROUP_NORM_EPS = 1e-6
LAYER_NORM_EPS = 1e-5


class KeysValues(NamedTuple):
    """What a text is to one cross-attention: the first `lengths` keys of each row, or all."""

    key: Float[Array, "B K N D"]
    value: Float[Array, "B K N D"]
    lengths: Int[Array, " B"] | None = None


class SelfAttention(nnx.Module):
    """Attention of the pixels to one another; queries, keys and values are one product."""

    def __init__(self, width: int, *, heads: int) -> None:
        self.to_qkv = Linear(width, 3 * width, bias=False)
        self.to_out = nnx.List([Linear(width, width)])
        self.heads = heads

    def __call__(self, x: Float[Array, "B L C"]) -> Float[Array, "B L C"]:
        query, key, value = (split_heads(part, self.heads) for part in jnp.split(self.to_qkv(x), 3, axis=-1))
        return self.to_out[0](join_heads(attention(query, key, value)))


class CrossAttention(nnx.Module):
    """Attention of the pixels to the text."""

    def __init__(self, width: int, context_width: int, *, heads: int) -> None:
        self.to_q = Linear(width, width, bias=False)
        self.to_kv = Linear(context_width, 2 * width, bias=False)
        self.to_out = nnx.List([Linear(width, width)])
        self.heads = heads

    def keys_values(self, context: Float[Array, "B K D"], lengths: Int[Array, " B"] | None = None) -> KeysValues:
        """Keys and values of a text. They are the same at each step of an image."""
        key, value = (split_heads(part, self.heads) for part in jnp.split(self.to_kv(context), 2, axis=-1))
        return KeysValues(key, value, lengths)

    def __call__(self, x: Float[Array, "B Q C"], text: KeysValues) -> Float[Array, "B Q C"]:
        query = split_heads(self.to_q(x), self.heads)
        return self.to_out[0](join_heads(attention(query, text.key, text.value, text.lengths)))


class GEGLU(nnx.Module):
    def __init__(self, width: int, inner: int) -> None:
        self.proj = Linear(width, 2 * inner)
        self.inner = inner

    def __call__(self, x: Float[Array, "B L C"]) -> Float[Array, "B L I"]:
        projected = self.proj(x)
        return projected[..., : self.inner] * gelu(projected[..., self.inner :])


class Dropout(nnx.Module):
    """Does nothing in rendering; holds place 1 of the checkpoint's `ff.net`."""

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        return x


class FeedForward(nnx.Module):
    def __init__(self, width: int) -> None:
        self.net = nnx.List([GEGLU(width, 4 * width), Dropout(), Linear(4 * width, width)])

    def __call__(self, x: Float[Array, "B L C"]) -> Float[Array, "B L C"]:
        for layer in self.net:
            x = layer(x)
        return x


class TransformerBlock(nnx.Module):
    def __init__(self, width: int, context_width: int, *, heads: int) -> None:
        self.norm1 = LayerNorm(width, eps=LAYER_NORM_EPS)
        self.attn1 = SelfAttention(width, heads=heads)
        self.norm2 = LayerNorm(width, eps=LAYER_NORM_EPS)
        self.attn2 = CrossAttention(width, context_width, heads=heads)
        self.norm3 = LayerNorm(width, eps=LAYER_NORM_EPS)
        self.ff = FeedForward(width)

    def __call__(self, x: Float[Array, "B L C"], text: KeysValues) -> Float[Array, "B L C"]:
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), text)
        return x + self.ff(self.norm3(x))


class Transformer2D(nnx.Module):
    """Transformer blocks over the pixels of a feature map.

    The checkpoint's projections are matrices or 1 x 1 convolutions (`use_linear_projection`): the same sum.
    """

    def __init__(self, width: int, context_width: int, *, heads: int, layers: int, groups: int, linear: bool) -> None:
        self.norm = GroupNorm(width, groups=groups, eps=GROUP_NORM_EPS)
        self.proj_in = Linear(width, width) if linear else Conv(width, width, size=1)
        self.transformer_blocks = nnx.List([TransformerBlock(width, context_width, heads=heads) for _ in range(layers)])
        self.proj_out = Linear(width, width) if linear else Conv(width, width, size=1)

    def keys_values(self, context: Float[Array, "B K D"], lengths: Int[Array, " B"] | None) -> list[KeysValues]:
        """The text's keys and values for each block."""
        return [block.attn2.keys_values(context, lengths) for block in self.transformer_blocks]

    def __call__(self, x: Float[Array, "B H W C"], text: list[KeysValues]) -> Float[Array, "B H W C"]:
        batch, height, width, channels = x.shape
        h = self.proj_in(self.norm(x)).reshape(batch, height * width, channels)  # B H W C -> B (H W) C
        for block, keys_values in zip(self.transformer_blocks, text, strict=True):
            h = block(h, keys_values)
        return x + self.proj_out(h.reshape(x.shape))
