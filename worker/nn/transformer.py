"""The UNet's transformer: self-attention over the pixels, cross-attention to the text, and a gated MLP."""

from typing import NamedTuple

from flax import nnx
from jaxtyping import Array, Float, Int

from promptmill.worker.nn.attention import attention, join_heads, split_heads
from promptmill.worker.nn.layers import Conv, GroupNorm, LayerNorm, Linear, gelu

# Not the configuration's norm_eps: diffusers' Transformer2DModel and BasicTransformerBlock have their own.
GROUP_NORM_EPS = 1e-6
LAYER_NORM_EPS = 1e-5


class Context(NamedTuple):
    """What is attended to: the first `lengths` tokens of each row, or all."""

    tokens: Float[Array, "B K D"]
    lengths: Int[Array, " B"] | None = None


class Attention(nnx.Module):
    def __init__(self, width: int, context_width: int, *, heads: int) -> None:
        self.to_q = Linear(width, width, bias=False)
        self.to_k = Linear(context_width, width, bias=False)
        self.to_v = Linear(context_width, width, bias=False)
        self.to_out = nnx.List([Linear(width, width)])
        self.heads = heads

    def __call__(self, x: Float[Array, "B Q C"], context: Context) -> Float[Array, "B Q C"]:
        query = split_heads(self.to_q(x), self.heads)
        key = split_heads(self.to_k(context.tokens), self.heads)
        value = split_heads(self.to_v(context.tokens), self.heads)
        return self.to_out[0](join_heads(attention(query, key, value, context.lengths)))


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
        self.attn1 = Attention(width, width, heads=heads)
        self.norm2 = LayerNorm(width, eps=LAYER_NORM_EPS)
        self.attn2 = Attention(width, context_width, heads=heads)
        self.norm3 = LayerNorm(width, eps=LAYER_NORM_EPS)
        self.ff = FeedForward(width)

    def __call__(self, x: Float[Array, "B L C"], context: Context) -> Float[Array, "B L C"]:
        normed = self.norm1(x)
        x = x + self.attn1(normed, Context(normed))
        x = x + self.attn2(self.norm2(x), context)
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

    def __call__(self, x: Float[Array, "B H W C"], context: Context) -> Float[Array, "B H W C"]:
        batch, height, width, channels = x.shape
        h = self.proj_in(self.norm(x)).reshape(batch, height * width, channels)  # B H W C -> B (H W) C
        for block in self.transformer_blocks:
            h = block(h, context)
        return x + self.proj_out(h.reshape(x.shape))
