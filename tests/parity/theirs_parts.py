"""One network at a time, written as a diffusers folder by PyTorch, and run by it."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from diffusers import AutoencoderKL, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from tests.parity import cases, theirs
from tests.parity.matrix import ENCODER, PROJECTING_ENCODER, UNET, VAE, Part

transformers.utils.logging.disable_progress_bar()

CLASSES: dict[str, Any] = {
    ENCODER: CLIPTextModel,
    PROJECTING_ENCODER: CLIPTextModelWithProjection,
    UNET: UNet2DConditionModel,
    VAE: AutoencoderKL,
}


def write(part: Part, folder: Path, seed: int = 0) -> Path:
    """The network with random weights, as its own class saves it: JSON and safetensors."""
    network = build(part)
    network.load_state_dict({key: _values(key, tensor, part, seed) for key, tensor in network.state_dict().items()})
    network.save_pretrained(folder, safe_serialization=True)
    return folder


def build(part: Part) -> Any:
    made = CLASSES[part.kind]
    return made(CLIPTextConfig(**part.config)) if part.kind in (ENCODER, PROJECTING_ENCODER) else made(**part.config)


def _values(key: str, tensor: torch.Tensor, part: Part, seed: int) -> torch.Tensor:
    """Normal values of a size that keeps signals near deviation one, or far below it."""
    if not tensor.is_floating_point():
        return tensor
    draw = torch.randn(tensor.shape, generator=theirs.generator(seed + zlib.crc32(key.encode())))
    if key.endswith("bias"):
        draw = draw * 0.1
    elif tensor.ndim == 1:
        draw = 1 + 0.1 * draw
    elif "embedding.weight" not in key:
        draw = draw / tensor[0].numel() ** 0.5
    return draw * 0.01 if part.quiet and cases.feeds_a_norm(key) else draw


@torch.no_grad()
def outputs(part: Part, folder: Path, dtype: torch.dtype = torch.float32) -> dict[str, np.ndarray]:
    """What the network of `folder` makes of the part's inputs, channels last."""
    network = CLASSES[part.kind].from_pretrained(folder, dtype=dtype, local_files_only=True).eval()
    return {
        name: value.float().numpy() if dtype == torch.bfloat16 else value.numpy()
        for name, value in _run(part, network, dtype).items()
    }


def _run(part: Part, network: Any, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    given = {name: torch.from_numpy(values) for name, values in cases.inputs_of(part).items()}
    # Timesteps, sizes and guidance are embedded in float32 by both, whatever the network computes in.
    given = {
        name: value.to(dtype) if name in ("latents", "context", "pooled") else value for name, value in given.items()
    }
    if part.kind == UNET:
        return {"prediction": _unet(network, given)}
    if part.kind == VAE:
        scaled = theirs.unscaled(network.config, given["latents"].permute(0, 3, 1, 2))
        return {"image": network.decode(scaled).sample.permute(0, 2, 3, 1)}
    encoded = network(given["ids"], output_hidden_states=True)
    pooled = encoded.text_embeds if part.kind == PROJECTING_ENCODER else encoded.pooler_output
    return {"context": encoded.hidden_states[-2], "pooled": pooled}


def _unet(network: Any, given: dict[str, torch.Tensor]) -> torch.Tensor:
    condition, width = None, network.config.time_cond_proj_dim
    if width is not None:
        condition = StableDiffusionXLPipeline.get_guidance_scale_embedding(network, given["guidance"] - 1, width)
    prediction = network(
        given["latents"].permute(0, 3, 1, 2),
        given["timestep"],
        given["context"],
        timestep_cond=None if condition is None else condition.to(given["latents"].dtype),
        added_cond_kwargs={"text_embeds": given["pooled"], "time_ids": given["time_ids"]},
    )
    return prediction.sample.permute(0, 2, 3, 1)
