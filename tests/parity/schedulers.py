"""diffusers' schedulers with a model that is a sum: the oracle of the samplers."""

import inspect
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import torch

from promptmill.producer.families.samplers import SAMPLERS
from promptmill.worker.sampling.solvers.plan import Sampling
from tests.parity.linear import PER_TIMESTEP, SLOPE

diffusers.utils.logging.set_verbosity_error()
torch.set_num_threads(1)


IN_FLOAT64 = ("DEISMultistepScheduler",)
"""Classes whose weights cancel: in float32 they lose 2e-4 of 501 steps of order 2, and all of order 3. So the oracle is
their own code on float64."""


def build(sampler: str, fields: Mapping[str, Any], asked: Mapping[str, Any] | None = None) -> Any:
    """The scheduler that `from_config` makes of a file with `fields`; `asked` are its keyword arguments."""
    row = SAMPLERS[sampler]
    named = {"algorithm_type": row.algorithm_type} if row.algorithm_type else {}
    return getattr(diffusers, row.scheduler).from_config(dict(fields), **named, **(asked or {}))


def set_timesteps(scheduler: Any, sampling: Sampling) -> int:
    """As the pipelines do (`retrieve_timesteps`); the count of steps that they then reckon with."""
    from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import retrieve_timesteps

    timesteps, sigmas = (list(given) if given else None for given in (sampling.timesteps, sampling.sigmas))
    steps: int = retrieve_timesteps(scheduler, sampling.steps, "cpu", timesteps, sigmas)[1]
    if in_float64(scheduler):
        scheduler.sigmas = scheduler.sigmas.double()
    return steps


def in_float64(scheduler: Any) -> bool:
    return type(scheduler).__name__ in IN_FLOAT64


def trajectory(scheduler: Any, sampling: Sampling, noise: np.ndarray, seed: int = 0) -> np.ndarray:
    """From noise alone to the end, as `StableDiffusionXLPipeline` goes."""
    set_timesteps(scheduler, sampling)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    timesteps = scheduler.timesteps
    if sampling.denoising_end is not None:
        trained = scheduler.config.num_train_timesteps
        cutoff = round(trained - (sampling.denoising_end * trained))
        timesteps = timesteps[: len([timestep for timestep in timesteps if timestep >= cutoff])]
    latents = torch.from_numpy(noise) * scheduler.init_noise_sigma
    return walk(scheduler, sampling, timesteps, latents, seed)


def trajectory_of_image(scheduler: Any, sampling: Sampling, image: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """From an image's latents, as `StableDiffusionXLImg2ImgPipeline` goes, by its own `get_timesteps`."""
    steps = set_timesteps(scheduler, sampling)
    pipeline = SimpleNamespace(scheduler=scheduler)
    timesteps, _ = diffusers.StableDiffusionXLImg2ImgPipeline.get_timesteps(
        pipeline, steps, sampling.strength, "cpu", denoising_start=sampling.denoising_start
    )
    latents = torch.from_numpy(image)
    if sampling.denoising_start is None:
        latents = scheduler.add_noise(latents, torch.from_numpy(noise), timesteps[:1])
    return walk(scheduler, sampling, timesteps, latents, seed=0)


def walk(scheduler: Any, sampling: Sampling, timesteps: Any, latents: torch.Tensor, seed: int) -> np.ndarray:
    given = {"generator": torch.Generator().manual_seed(seed), "eta": sampling.eta}
    options = {name: given[name] for name in given.keys() & inspect.signature(scheduler.step).parameters.keys()}
    latents = latents.double() if in_float64(scheduler) else latents
    seen = [latents.numpy()]
    for timestep in timesteps:
        prediction = SLOPE * scheduler.scale_model_input(latents, timestep) + PER_TIMESTEP * timestep
        latents = scheduler.step(prediction, timestep, latents, **options).prev_sample
        seen.append(latents.numpy())
    return np.stack(seen).astype(np.float32)


def draws(seed: int, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """The noise of PyTorch's generator, a draw an evaluation."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randn(shape, generator=generator).numpy()
