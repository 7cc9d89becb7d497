"""A small refiner, written by PyTorch in the layout of the published one: no first encoder, five time ids."""

import json
import shutil
from pathlib import Path
from typing import Any

from tests.parity import theirs_parts
from tests.parity.matrix import PROJECTING_ENCODER, REFINER_UNET, UNET, Part

# stabilityai/stable-diffusion-xl-refiner-1.0's, but for its version.
_INDEX: dict[str, Any] = {
    "_class_name": "StableDiffusionXLImg2ImgPipeline",
    "add_watermarker": None,
    "force_zeros_for_empty_prompt": False,
    "requires_aesthetics_score": True,
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "text_encoder": [None, None],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer": [None, None],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def write_refiner(folder: Path, base: Path) -> Path:
    """A refiner with networks of its own, but for the autoencoder, which it shares with its base model."""
    for name in ("tokenizer_2", "scheduler", "vae"):
        shutil.copytree(base / name, folder / name)
    encoder = json.loads((base / "text_encoder_2" / "config.json").read_text())
    theirs_parts.write(Part(PROJECTING_ENCODER, encoder), folder / "text_encoder_2", seed=1)
    unet = {
        **REFINER_UNET,
        "block_out_channels": [16, 32, 64, 64],
        "attention_head_dim": [2, 4, 8, 8],
        "transformer_layers_per_block": 1,
        "layers_per_block": 1,
        "cross_attention_dim": encoder["hidden_size"],
        "projection_class_embeddings_input_dim": 5 * REFINER_UNET["addition_time_embed_dim"]
        + encoder["projection_dim"],
    }
    theirs_parts.write(Part(UNET, unet), folder / "unet", seed=2)
    (folder / "model_index.json").write_text(json.dumps(_INDEX, indent=2))
    return folder
