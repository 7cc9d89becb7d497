"""A complete SDXL with random weights, small enough to render on one CPU core in the blink of an eye.

For demonstrations and tests: every part of the real model is there, under the real keys, in a diffusers
folder that PyTorch's `StableDiffusionXLPipeline.from_pretrained` loads too. Its images are coloured noise.
"""

import json
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from safetensors.numpy import save_file

from promptmill.worker.checkpoint.weights import Parameter, parameters
from promptmill.worker.nn.vae_encoder import VAEEncoder
from promptmill.worker.sdxl.config import ModelConfig
from promptmill.worker.sdxl.parts import builders
from promptmill.worker.text.tiny_tokenizer import write_tokenizer

# Raise it whenever the files change, so that a cached copy of the old ones is not taken for the new.
TINY_VERSION = 2

_CLIP = {
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "max_position_embeddings": 77,
    "layer_norm_eps": 1e-5,
    "eos_token_id": 2,
    "bos_token_id": 0,
    "pad_token_id": 1,
    "model_type": "clip_text_model",
    "dtype": "float32",  # what PyTorch loads it as, as diffusers does the UNet, whatever it is stored in
}
_LEVELS = 4
CONFIGS: dict[str, dict[str, Any]] = {
    "text_encoder/config.json": {
        **_CLIP,
        "architectures": ["CLIPTextModel"],
        "hidden_act": "quick_gelu",
        "hidden_size": 16,
        "projection_dim": 16,
        "num_attention_heads": 2,
    },
    "text_encoder_2/config.json": {
        **_CLIP,
        "architectures": ["CLIPTextModelWithProjection"],
        "hidden_act": "gelu",
        "hidden_size": 32,
        "projection_dim": 32,
        "num_attention_heads": 4,
    },
    "unet/config.json": {
        "_class_name": "UNet2DConditionModel",
        "act_fn": "silu",
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "attention_head_dim": [2, 4, 8],
        "block_out_channels": [16, 32, 64],
        "center_input_sample": False,
        "cross_attention_dim": 48,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "in_channels": 4,
        "layers_per_block": 1,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-5,
        "norm_num_groups": 8,
        "out_channels": 4,
        "projection_class_embeddings_input_dim": 80,
        "resnet_time_scale_shift": "default",
        "sample_size": 8,
        "transformer_layers_per_block": [1, 1, 2],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "use_linear_projection": True,
    },
    "vae/config.json": {
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": [8, 16, 16, 32],
        "down_block_types": ["DownEncoderBlock2D"] * _LEVELS,
        "force_upcast": True,
        "in_channels": 3,
        "latent_channels": 4,
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "out_channels": 3,
        "sample_size": 64,
        "scaling_factor": 0.13025,
        "up_block_types": ["UpDecoderBlock2D"] * _LEVELS,
    },
    "scheduler/scheduler_config.json": {
        "_class_name": "EulerDiscreteScheduler",
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "interpolation_type": "linear",
        "num_train_timesteps": 1000,
        "prediction_type": "epsilon",
        "steps_offset": 1,
        "timestep_spacing": "leading",
        "use_karras_sigmas": False,
    },
    "model_index.json": {
        "_class_name": "StableDiffusionXLPipeline",
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
_WEIGHT_FILES = {
    "text_encoder": "model.safetensors",
    "text_encoder_2": "model.safetensors",
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
}


def write_tiny_random(folder: Path, *, seed: int = 0, changes: dict[str, dict[str, Any]] | None = None) -> Path:
    """Write the model into a folder; return that.

    `changes` replaces fields of a configuration file, as in `{"unet/config.json": {"norm_num_groups": 4}}`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write_files(folder, seed, changes or {})
    return folder


def _write_files(folder: Path, seed: int, changes: dict[str, dict[str, Any]]) -> None:
    vocab_size = write_tokenizer(folder / "tokenizer", pad_token="<|endoftext|>")
    write_tokenizer(folder / "tokenizer_2", pad_token="!")
    for name, values in CONFIGS.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        sized = {"vocab_size": vocab_size} if name.startswith("text_encoder") else {}
        path.write_text(json.dumps({**values, **sized, **changes.get(name, {})}, indent=2) + "\n")
    config = ModelConfig.from_folder(folder)
    for component, wanted in checkpoint_parameters(config).items():
        tensors = {wish.key: _values(component, wish, seed) for wish in wanted}
        save_file(tensors, folder / component / _WEIGHT_FILES[component], metadata={"format": "pt"})


def checkpoint_parameters(config: ModelConfig) -> dict[str, list[Parameter]]:
    """What each component's weight file holds in a whole checkpoint: the encoding half of the autoencoder too."""
    found = {component: list(_parameters_of(build)) for component, build in builders(config).items()}
    found["vae"] += _parameters_of(lambda: VAEEncoder(config.vae))
    return found


def _parameters_of(build: Any) -> Iterator[Parameter]:
    return parameters(nnx.state(nnx.eval_shape(build)))


def _values(component: str, wanted: Parameter, seed: int) -> np.ndarray:
    """Normal values of a size that keeps signals near deviation one; each key has its own generator."""
    draw = np.random.default_rng([seed, zlib.crc32(f"{component}/{wanted.key}".encode())])
    values = draw.standard_normal(wanted.shape)
    match wanted.path[-1]:
        case "kernel":
            values /= math.sqrt(math.prod(wanted.shape[1:]))
        case "scale":
            values = 1 + 0.1 * values
        case "bias":
            values *= 0.1
    return values.astype(np.float32)
