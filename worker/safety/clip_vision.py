"""CLIP's image encoder, for the safety checker. Attribute names are the keys of the published checkpoints."""

from dataclasses import dataclass, fields
from typing import Any, Self

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from promptmill.worker.errors import ConfigError
from promptmill.worker.nn.layers import Embedding, LayerNorm
from promptmill.worker.text.clip import ACTIVATIONS, Layer


@dataclass(frozen=True)
class CLIPVisionConfig:
    """The fields of transformers' `CLIPVisionConfig` that an embedding depends on, with its defaults."""

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_channels: int = 3
    image_size: int = 224
    patch_size: int = 32
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        if self.hidden_act not in ACTIVATIONS:
            raise ConfigError(f"hidden_act is {self.hidden_act!r}, but only {' or '.join(ACTIVATIONS)} is implemented")
        if self.num_channels != 3:
            raise ConfigError(f"num_channels is {self.num_channels!r}, but images have 3")
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(f"num_attention_heads is {self.num_attention_heads}, which does not divide hidden_size")

    @classmethod
    def from_fields(cls, values: dict[str, Any]) -> Self:
        """What a `vision_config` says. Its other fields are for training and for generating text."""
        return cls(**{field.name: values[field.name] for field in fields(cls) if field.name in values})


class PatchEmbedding(nnx.Module):
    """A vector for each square of `patch_size` pixels; the squares do not overlap."""

    def __init__(self, config: CLIPVisionConfig) -> None:
        self.size = config.patch_size
        self.kernel = nnx.Param(jnp.zeros((self.size, self.size, config.num_channels, config.hidden_size)))

    def __call__(self, x: Float[Array, "B H W 3"]) -> Float[Array, "B L C"]:
        patches = lax.conv_general_dilated(
            x,
            self.kernel[...],
            window_strides=(self.size, self.size),
            padding="VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return patches.reshape(len(x), -1, patches.shape[-1])  # B h w C -> B (h w) C


class VisionEmbeddings(nnx.Module):
    def __init__(self, config: CLIPVisionConfig) -> None:
        patches = (config.image_size // config.patch_size) ** 2
        self.class_embedding = nnx.Param(jnp.zeros(config.hidden_size))
        self.patch_embedding = PatchEmbedding(config)
        self.position_embedding = Embedding(patches + 1, config.hidden_size)

    def __call__(self, x: Float[Array, "B H W 3"]) -> Float[Array, "B L C"]:
        patches = self.patch_embedding(x)
        first = jnp.broadcast_to(self.class_embedding[...][None, None], (len(x), 1, patches.shape[-1]))
        tokens = jnp.concatenate([first, patches], axis=1)
        return tokens + self.position_embedding(jnp.arange(tokens.shape[1])[None])


class VisionEncoder(nnx.Module):
    def __init__(self, config: CLIPVisionConfig) -> None:
        self.layers = nnx.List([Layer(config, causal=False) for _ in range(config.num_hidden_layers)])

    def __call__(self, x: Float[Array, "B L C"]) -> Float[Array, "B L C"]:
        for layer in self.layers:
            x = layer(x)
        return x


class CLIPVision(nnx.Module):
    """An image, resized and normalised, to one vector: what the class token has become, normalised."""

    def __init__(self, config: CLIPVisionConfig) -> None:
        self.embeddings = VisionEmbeddings(config)
        self.pre_layrnorm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)  # the checkpoints' own spelling
        self.encoder = VisionEncoder(config)
        self.post_layernorm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def __call__(self, x: Float[Array, "B H W 3"]) -> Float[Array, "B C"]:
        tokens = self.encoder(self.pre_layrnorm(self.embeddings(x)))
        return self.post_layernorm(tokens[:, 0])
