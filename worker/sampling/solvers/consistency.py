"""For distilled models: LCM (Luo et al. 2023, arXiv 2310.04378) and TCD (Zheng et al. 2024, arXiv 2402.19159).

As diffusers' `scheduling_lcm.py` and `scheduling_tcd.py` do it.
"""

from functools import partial

import numpy as np
from jaxtyping import Int

from promptmill.worker.errors import ConfigError, RequestError
from promptmill.worker.sampling.defaults import CLIPPED, CONSISTENCY, Defaults
from promptmill.worker.sampling.schedule import training_alphas_cumprod
from promptmill.worker.sampling.solvers.ddim import variance_preserving
from promptmill.worker.sampling.solvers.plan import Arrays, Plan, Plans, Sampling, Stepped, noise_in
from promptmill.worker.sampling.solvers.settings import Settings

SIGMA_DATA = 0.5
"""Deviation of the data, by which LCM's skip connection is scaled."""


def plan_lcm(settings: Settings, sampling: Sampling) -> Plan:
    timesteps = distilled_timesteps(settings, sampling)
    alphas_cumprod = training_alphas_cumprod(settings).astype(np.float64)[timesteps]
    return variance_preserving(
        timesteps, alphas_cumprod, partial(lcm_step, alphas_cumprod, timesteps * settings.timestep_scaling)
    )


def lcm_step(alphas_cumprod: np.ndarray, scaled: np.ndarray, index: int, first: int, arrays: Arrays) -> Stepped:
    """To the image, and back with new noise to the next level; the last step stays at the image."""
    square = scaled[index] ** 2 + SIGMA_DATA**2
    image = scaled[index] / np.sqrt(square) * arrays.denoised + SIGMA_DATA**2 / square * arrays.latents
    if index + 1 == len(alphas_cumprod):
        return image, ()
    return np.sqrt(alphas_cumprod[index + 1]) * image + np.sqrt(1 - alphas_cumprod[index + 1]) * arrays.noise, ()


def plan_tcd(settings: Settings, sampling: Sampling) -> Plan:
    if not 0 <= sampling.eta <= 1:
        raise RequestError(f"eta is {sampling.eta}, expected 0 to 1")
    timesteps = distilled_timesteps(settings, sampling)
    alphas_cumprod = training_alphas_cumprod(settings).astype(np.float64)
    following = np.append(timesteps[1:], 0)
    # In float32, as PyTorch multiplies: the floor can be another otherwise.
    between = np.floor(np.float32(1 - sampling.eta) * following.astype(np.float32)).astype(int)
    levels = np.stack([alphas_cumprod[timesteps], alphas_cumprod[following], alphas_cumprod[between]])
    step = partial(tcd_step, settings.prediction_type, levels, sampling.eta)
    return variance_preserving(timesteps, alphas_cumprod[timesteps], step)


def tcd_step(kind: str, levels: np.ndarray, eta: float, index: int, first: int, arrays: Arrays) -> Stepped:
    """To a level below the next, and up to that with new noise; the last step takes none."""
    now, following, between = levels[:, index]
    # Never clipped, whatever the configuration says.
    noise = noise_in(kind, np.sqrt(now), np.sqrt(1 - now), arrays)
    reached = np.sqrt(between) * arrays.denoised + np.sqrt(1 - between) * noise
    if eta == 0 or index + 1 == levels.shape[1]:
        return reached, ()
    share = following / between
    return np.sqrt(share) * reached + np.sqrt(1 - share) * arrays.noise, ()


def distilled_timesteps(settings: Settings, sampling: Sampling) -> Int[np.ndarray, " N"]:
    """Those asked for, or some of the timesteps that the model was distilled at, evenly from the top."""
    if sampling.timesteps is not None:
        timesteps = np.array(sampling.timesteps)
        if (np.diff(timesteps) >= 0).any():
            raise RequestError(f"timesteps must decrease, got {sampling.timesteps}")
        return timesteps
    count, trained = settings.original_inference_steps, settings.num_train_timesteps
    if not 1 <= count <= trained:
        raise ConfigError(f"original_inference_steps is {count}, expected 1 to {trained}")
    if sampling.steps > count:
        raise RequestError(
            f"{sampling.steps} steps, but the model was distilled for {count} (original_inference_steps)"
        )
    distilled = np.arange(count, 0, -1) * (trained // count) - 1
    return distilled[np.floor(np.linspace(0, count, sampling.steps, endpoint=False)).astype(int)]


PLANS: Plans = {"lcm": plan_lcm, "tcd": plan_tcd}
DEFAULTS: Defaults = {
    "LCMScheduler": {**CONSISTENCY, **CLIPPED, "thresholding": False, "timestep_scaling": 10.0},
    # Its constructor takes clipping and thresholding too, and never reads them.
    "TCDScheduler": CONSISTENCY,
}
