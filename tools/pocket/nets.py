"""The pocket model's networks: the worker's own modules, with the sizes and the first weights that training wants."""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from promptmill.worker.nn.layers import GroupNorm
from promptmill.worker.nn.vae_encoder import VAEEncoder
from promptmill.worker.sdxl.config import ModelConfig
from promptmill.worker.sdxl.parts import builders

TEXT_LENGTH = 32
_TEXT_WIDTH = 64
_CLIP = {
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "hidden_size": _TEXT_WIDTH,
    "projection_dim": _TEXT_WIDTH,
    "max_position_embeddings": TEXT_LENGTH,
    "layer_norm_eps": 1e-5,
    "eos_token_id": 2,
    "bos_token_id": 0,
    "pad_token_id": 1,
    "model_type": "clip_text_model",
    "dtype": "float32",  # what PyTorch loads it as, as diffusers does the UNet, whatever it is stored in
}
_LEVELS = 3
CONFIGS: dict[str, dict[str, Any]] = {
    "text_encoder/config.json": {**_CLIP, "architectures": ["CLIPTextModel"], "hidden_act": "quick_gelu"},
    "text_encoder_2/config.json": {**_CLIP, "architectures": ["CLIPTextModelWithProjection"], "hidden_act": "gelu"},
    "unet/config.json": {
        "_class_name": "UNet2DConditionModel",
        "act_fn": "silu",
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "attention_head_dim": [2, 4, 7],
        "block_out_channels": [32, 64, 112],
        "cross_attention_dim": 2 * _TEXT_WIDTH,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "in_channels": 4,
        "layers_per_block": 1,
        "norm_eps": 1e-5,
        "norm_num_groups": 16,
        "out_channels": 4,
        "projection_class_embeddings_input_dim": 6 * 8 + _TEXT_WIDTH,
        "sample_size": 16,
        "transformer_layers_per_block": 1,
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "use_linear_projection": True,
    },
    "vae/config.json": {
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": [16, 32, 64],
        "down_block_types": ["DownEncoderBlock2D"] * _LEVELS,
        "force_upcast": False,
        "in_channels": 3,
        "latent_channels": 4,
        "layers_per_block": 1,
        "mid_block_add_attention": False,
        "norm_num_groups": 8,
        "out_channels": 3,
        "sample_size": 64,
        "scaling_factor": 1.0,
        "up_block_types": ["UpDecoderBlock2D"] * _LEVELS,
    },
    "scheduler/scheduler_config.json": {
        "_class_name": "EulerDiscreteScheduler",
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "interpolation_type": "linear",
        "num_train_timesteps": 1000,
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "steps_offset": 1,
        "timestep_spacing": "trailing",
        "use_karras_sigmas": False,
    },
    "model_index.json": {
        "_class_name": "StableDiffusionXLPipeline",
        "_diffusers_version": "0.42.1",
        "force_zeros_for_empty_prompt": True,
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    },
}

Weights = dict[tuple[Any, ...], Array]


def write_configs(folder: Path, vocab_size: int) -> ModelConfig:
    """The folder's JSON files, and what they say."""
    for name, values in CONFIGS.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        sized = {"vocab_size": vocab_size} if name.startswith("text_encoder") else {}
        path.write_text(json.dumps({**values, **sized}, indent=2) + "\n")
    return ModelConfig.from_folder(folder)


def network_builders(config: ModelConfig) -> dict[str, Callable[[], nnx.Module]]:
    """What builds each network, the encoder of the autoencoder among them."""
    return {**builders(config), "vae_encoder": lambda: VAEEncoder(config.vae)}


def first_weights(build: Callable[[], nnx.Module], seed: int) -> Weights:
    """Random weights of a size that keeps signals near deviation one; each branch of a residual begins at zero."""
    draw = np.random.default_rng(seed)
    state = nnx.state(nnx.eval_shape(build))
    return {path: jnp.asarray(_first(path, leaf.shape, draw)) for path, leaf in nnx.to_flat_state(state)}


def _first(path: tuple[Any, ...], shape: tuple[int, ...], draw: np.random.Generator) -> np.ndarray:
    match path[-1]:
        case "scale":
            values = np.ones(shape)
        case "bias":
            values = np.zeros(shape)
        case "embedding":
            values = draw.normal(size=shape) * (0.1 if "position_embedding" in path else 0.5)
        case _:
            silent = _ends_a_branch(path)
            values = draw.normal(size=shape) * (0.02 if silent else 1) / math.sqrt(math.prod(shape[:-1]))
    return values.astype(np.float32)


def _ends_a_branch(path: tuple[Any, ...]) -> bool:
    names = [str(part) for part in path]
    return names[-2] in ("conv2", "proj_out", "fc2", "out_proj") or "to_out" in names or names[:1] == ["conv_out"]


def bind(build: Callable[[], nnx.Module], weights: Weights) -> nnx.Module:
    """The network with these weights; made for use inside a compiled function."""
    graph, state = nnx.split(nnx.eval_shape(build))
    flat = {path: leaf.replace(weights[path]) for path, leaf in nnx.to_flat_state(state)}
    return nnx.merge(graph, nnx.from_flat_state(flat))


@contextmanager
def fast_norms() -> Iterator[None]:
    """Group norms by matrix products while tracing inside: on CPUs a tenth of the time, gradients included.

    Means of squares less squares of means lose digits where the mean is large; training can bear it,
    the worker, which must agree with PyTorch to the last digits, does not do it.
    """
    exact = GroupNorm.__call__
    GroupNorm.__call__ = _fast_group_norm  # type: ignore[method-assign]
    try:
        yield
    finally:
        GroupNorm.__call__ = exact  # type: ignore[method-assign]


def _fast_group_norm(self: GroupNorm, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
    batch, height, width, channels = x.shape
    flat = x.reshape(batch, height * width, channels)
    share = channels // self.groups
    member = jnp.repeat(jnp.eye(self.groups), share, axis=0)  # C G
    average = jnp.full((batch, 1, height * width), 1 / (height * width * share))
    mean = (average @ flat)[:, 0] @ member
    variance = jnp.maximum((average @ jnp.square(flat))[:, 0] @ member - jnp.square(mean), 0)
    scale = (jax.lax.rsqrt(variance + self.eps) @ member.T) * self.scale[...][None]
    shift = self.bias[...][None] - (mean @ member.T) * scale
    return (flat * scale[:, None] + shift[:, None]).reshape(x.shape)
