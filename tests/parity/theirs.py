"""What is compared, computed by PyTorch diffusers and transformers: the oracle."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline
from diffusers.utils import logging

from tests.parity import cases
from worker.sdxl.program import PlainRequest

logging.set_verbosity_error()
# The cores are shared; and the sums of one thread are the same everywhere.
torch.set_num_threads(1)


def load(folder: Path) -> Any:
    pipeline: Any = StableDiffusionXLPipeline.from_pretrained(folder, local_files_only=True, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
def parts(pipeline: Any) -> dict[str, np.ndarray]:
    """Each network's outputs for the cases' inputs, channels last."""
    ids = torch.from_numpy(cases.token_ids(pipeline.text_encoder.config.vocab_size))
    first = pipeline.text_encoder(ids, output_hidden_states=True)
    second = pipeline.text_encoder_2(ids, output_hidden_states=True)
    latents = cases.vae_latents(pipeline.vae.config.latent_channels)
    return {
        "context": first.hidden_states[-2].numpy(),
        "context_2": second.hidden_states[-2].numpy(),
        "pooled": second.text_embeds.numpy(),
        "unet": _unet(pipeline),
        "vae": _channels_last(pipeline.vae.decode(_unscaled(pipeline.vae.config, _channels_first(latents))).sample),
    }


def _unet(pipeline: Any) -> np.ndarray:
    config = pipeline.unet.config
    given = cases.unet_inputs(
        config.in_channels, config.cross_attention_dim, pipeline.text_encoder_2.config.projection_dim
    )
    inputs = {name: torch.from_numpy(value) for name, value in given.items()}
    condition = None
    if config.time_cond_proj_dim is not None:
        condition = pipeline.get_guidance_scale_embedding(inputs["guidance"] - 1, config.time_cond_proj_dim)
    output = pipeline.unet(
        _channels_first(given["latents"]),
        inputs["timestep"],
        inputs["context"],
        timestep_cond=condition,
        added_cond_kwargs={"text_embeds": inputs["pooled"], "time_ids": inputs["time_ids"]},
    )
    return _channels_last(output.sample)


def _unscaled(config: Any, latents: torch.Tensor) -> torch.Tensor:
    if config.latents_mean is None or config.latents_std is None:
        return latents / config.scaling_factor
    mean = torch.tensor(config.latents_mean).view(1, -1, 1, 1)
    std = torch.tensor(config.latents_std).view(1, -1, 1, 1)
    return latents * std / config.scaling_factor + mean


def schedule(settings: dict[str, Any], steps: int) -> dict[str, np.ndarray]:
    scheduler: Any = EulerDiscreteScheduler(**settings)
    scheduler.set_timesteps(steps)
    return {
        "timesteps": scheduler.timesteps.numpy(),
        "sigmas": scheduler.sigmas.numpy()[: len(scheduler.timesteps) + 1],
        "initial_scale": np.asarray(scheduler.init_noise_sigma, np.float32),
    }


def trajectory(settings: dict[str, Any]) -> np.ndarray:
    """Latents from start to end, for a model that returns its input and a little of its timestep."""
    scheduler: Any = EulerDiscreteScheduler(**settings)
    scheduler.set_timesteps(cases.TRAJECTORY_STEPS)
    # As the pipeline does; else a timestep that comes twice at the start is skipped.
    scheduler.set_begin_index(0)
    latents = torch.from_numpy(cases.trajectory_start()) * scheduler.init_noise_sigma
    visited = [latents.numpy()]
    for timestep in scheduler.timesteps:
        prediction = 0.7 * scheduler.scale_model_input(latents, timestep) + 1e-4 * timestep
        latents = scheduler.step(prediction, timestep, latents).prev_sample
        visited.append(latents.numpy())
    return np.stack(visited)


def noise(seed: int, height: int, width: int) -> np.ndarray:
    return _channels_last(torch.randn(1, 4, height, width, generator=generator(seed)))[0]


def image(pipeline: Any, request: PlainRequest) -> np.ndarray:
    settings = cases.settings_of(request)
    return np.asarray(pipeline(**settings, generator=generator(request.seed)).images[0])


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _channels_first(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array).permute(0, 3, 1, 2)


def _channels_last(tensor: torch.Tensor) -> np.ndarray:
    return tensor.permute(0, 2, 3, 1).contiguous().numpy()
