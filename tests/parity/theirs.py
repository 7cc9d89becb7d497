"""What is compared, computed by PyTorch diffusers and transformers: the oracle."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, EulerDiscreteScheduler
from diffusers.utils import logging

from promptmill.worker.sdxl.requests import PlainRequest
from tests.parity import cases, schedulers

logging.set_verbosity_error()
logging.disable_progress_bar()
# The cores are shared; and the sums of one thread are the same everywhere.
torch.set_num_threads(1)


def load(folder: Path, *, dtype: torch.dtype = torch.float32) -> Any:
    """The pipeline of a folder, a base model's or a refiner's."""
    pipeline: Any = DiffusionPipeline.from_pretrained(folder, local_files_only=True, add_watermarker=False, dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.of_the_folder = pipeline.scheduler.config
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
        "vae": _channels_last(pipeline.vae.decode(unscaled(pipeline.vae.config, _channels_first(latents))).sample),
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


def unscaled(config: Any, latents: torch.Tensor) -> torch.Tensor:
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
    """The image of a request, with the scheduler that its sampler is."""
    return np.asarray(_call(pipeline, request, **cases.settings_of(request)).images[0])


def latents(pipeline: Any, request: PlainRequest) -> np.ndarray:
    """What the request's sampling ends in, channels last."""
    found = _call(pipeline, request, **cases.settings_of(request), output_type="latent").images
    return _channels_last(found.float())[0]


def refined(base: Any, refiner: Any, request: PlainRequest) -> np.ndarray:
    """The image of a base model and a refiner, by the request as an ensemble of experts or as image to image."""
    settings = cases.settings_of(request)
    latents = _call(base, request, **settings, output_type="latent").images
    given = {name: value for name, value in settings.items() if name not in ("width", "height", "denoising_end")}
    own = {"aesthetic_score": request.aesthetic_score, "negative_aesthetic_score": request.negative_aesthetic_score}
    own |= {"strength": request.refiner_strength, "denoising_start": request.denoising_end}
    given |= {name: value for name, value in own.items() if value is not None}
    return np.asarray(_call(refiner, request, **given, image=latents).images[0])


def _call(pipeline: Any, request: PlainRequest, **settings: Any) -> Any:
    pipeline.scheduler = scheduler(pipeline.of_the_folder, request)
    return pipeline(**settings, generator=generator(request.seed))


def scheduler(config: Any, request: PlainRequest) -> Any:
    """diffusers' scheduler of a request, from the configuration that lies in the model's folder."""
    asked: dict[str, Any] = {}
    if request.timestep_spacing is not None:
        asked["timestep_spacing"] = request.timestep_spacing
    if request.sigma_schedule is not None:
        asked[f"use_{request.sigma_schedule}_sigmas"] = True
    return schedulers.build(request.sampler, config, asked)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _channels_first(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array).permute(0, 3, 1, 2)


def _channels_last(tensor: torch.Tensor) -> np.ndarray:
    return tensor.permute(0, 2, 3, 1).contiguous().numpy()
