"""The CLIP text encoders. Attribute names are the keys of the published checkpoints."""

from typing import Protocol

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from promptmill.worker.nn.attention import attention, join_heads, split_heads
from promptmill.worker.nn.layers import Embedding, LayerNorm, Linear, gelu, quick_gelu
from promptmill.worker.text.config import CLIPConfig

ACTIVATIONS = {"gelu": gelu, "quick_gelu": quick_gelu}
# What the published configs hold; it means: pool where the largest id stands (transformers #24773).
OLD_EOS_TOKEN_ID = 2


class Embeddings(nnx.Module):
    def __init__(self, config: CLIPConfig) -> None:
        self.token_embedding = Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = Embedding(config.max_position_embeddings, config.hidden_size)

    def __call__(self, ids: Int[Array, "B L"]) -> Float[Array, "B L C"]:
        positions = self.position_embedding(jnp.arange(ids.shape[1])[None])
        return self.token_embedding(ids) + positions


class LayerConfig(Protocol):
    """What a layer of CLIP is made of, in its text encoders and in its image encoder."""

    @property
    def hidden_size(self) -> int: ...
    @property
    def intermediate_size(self) -> int: ...
    @property
    def num_attention_heads(self) -> int: ...
    @property
    def hidden_act(self) -> str: ...
    @property
    def layer_norm_eps(self) -> float: ...


class SelfAttention(nnx.Module):
    def __init__(self, config: LayerConfig, *, causal: bool) -> None:
        width = config.hidden_size
        self.q_proj = Linear(width, width)
        self.k_proj = Linear(width, width)
        self.v_proj = Linear(width, width)
        self.out_proj = Linear(width, width)
        self.heads, self.causal = config.num_attention_heads, causal

    def __call__(self, x: Float[Array, "B L C"]) -> Float[Array, "B L C"]:
        query, key, value = (split_heads(part(x), self.heads) for part in (self.q_proj, self.k_proj, self.v_proj))
        return self.out_proj(join_heads(attention(query, key, value, causal=self.causal)))


class MLP(nnx.Module):
    def __init__(self, config: LayerConfig) -> None:
        self.fc1 = Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = Linear(config.intermediate_size, config.hidden_size)
        self.act = ACTIVATIONS[config.hidden_act]

    def __call__(self, x: Float[Array, "B L C"]) -> Float[Array, "B L C"]:
        return self.fc2(self.act(self.fc1(x)))


class Layer(nnx.Module):
    """Text looks back only (`causal`); an image's patches look at all."""

    def __init__(self, config: LayerConfig, *, causal: bool = True) -> None:
        self.layer_norm1 = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = SelfAttention(config, causal=causal)
        self.layer_norm2 = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = MLP(config)

    def __call__(self, x: Float[Array, "B L C"]) -> Float[Array, "B L C"]:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class Encoder(nnx.Module):
    def __init__(self, config: CLIPConfig) -> None:
        self.layers = nnx.List([Layer(config) for _ in range(config.num_hidden_layers)])

    def __call__(
        self, x: Float[Array, "B L C"], skipped: Int[Array, " B"]
    ) -> tuple[Float[Array, "B L C"], Float[Array, "B L C"]]:
        """What goes into the last layer, or comes out of so many before that; and what the last layer gives."""
        kept, wanted = x, len(self.layers) - 1 - skipped
        for count, layer in enumerate(self.layers, start=1):
            x = layer(x)
            if count < len(self.layers):
                kept = jnp.where((count <= wanted)[:, None, None], x, kept)
        return kept, x


class TextTransformer(nnx.Module):
    def __init__(self, config: CLIPConfig) -> None:
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.final_layer_norm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.eos_token_id = config.eos_token_id

    def __call__(
        self, ids: Int[Array, "B L"], skipped: Int[Array, " B"]
    ) -> tuple[Float[Array, "B L C"], Float[Array, "B C"]]:
        context, last = self.encoder(self.embeddings(ids), skipped)
        place = _pooling_place(ids, self.eos_token_id)
        pooled = jnp.take_along_axis(last, place[:, None, None], axis=1)[:, 0]
        return context, self.final_layer_norm(pooled)


class CLIPText(nnx.Module):
    """A text encoder, with a projection of its pooled vector where the checkpoint has one.

    Returns `hidden_states[-(skipped + 2)]`, which is not normalised, and the pooled vector, which is. `skipped` is
    diffusers' `clip_skip`, for each text its own; 0 is SDXL's.
    """

    def __init__(self, config: CLIPConfig, *, projection: bool) -> None:
        self.text_model = TextTransformer(config)
        if projection:
            self.text_projection = Linear(config.hidden_size, config.projection_dim, bias=False)
        self.projected = projection

    def __call__(
        self, ids: Int[Array, "B L"], skipped: Int[Array, " B"] | None = None
    ) -> tuple[Float[Array, "B L C"], Float[Array, "B P"]]:
        skipped = jnp.zeros(ids.shape[0], jnp.int32) if skipped is None else skipped
        context, pooled = self.text_model(ids, skipped)
        return context, self.text_projection(pooled) if self.projected else pooled


def _pooling_place(ids: Int[Array, "B L"], eos_token_id: int) -> Int[Array, " B"]:
    if eos_token_id == OLD_EOS_TOKEN_ID:
        return jnp.argmax(ids, axis=-1)
    return jnp.argmax(ids == eos_token_id, axis=-1)
