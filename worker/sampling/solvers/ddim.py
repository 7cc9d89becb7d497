"""DDIM (Song et al. 2021, arXiv 2010.02502; diffusers `scheduling_ddim.py`)."""

from functools import partial

import numpy as np

from promptmill.worker.errors import RequestError
from promptmill.worker.sampling.defaults import BETAS, CLIPPED, ZERO_SNR, Defaults
from promptmill.worker.sampling.schedule import spaced, training_alphas_cumprod
from promptmill.worker.sampling.solvers.plan import Arrays, Plan, Plans, Sampling, Step, Stepped, noise_in
from promptmill.worker.sampling.solvers.settings import Settings


def plan_ddim(settings: Settings, sampling: Sampling) -> Plan:
    if sampling.eta < 0:
        raise RequestError(f"eta is {sampling.eta}, expected 0 or more")
    timesteps = spaced(settings, sampling.steps).round().astype(int)
    if timesteps[0] >= settings.num_train_timesteps:
        raise RequestError(
            f"{sampling.steps} steps begin at timestep {timesteps[0]}, but training had {settings.num_train_timesteps}"
        )
    alphas_cumprod = training_alphas_cumprod(settings).astype(np.float64)
    # By training steps, not by the list of those visited.
    earlier = timesteps - settings.num_train_timesteps // sampling.steps
    alphas_cumprod_after = np.where(
        earlier >= 0, alphas_cumprod[np.maximum(earlier, 0)], 1.0 if settings.set_alpha_to_one else alphas_cumprod[0]
    )
    step = partial(ddim_step, settings.prediction_type, alphas_cumprod[timesteps], alphas_cumprod_after, sampling.eta)
    return variance_preserving(timesteps, alphas_cumprod[timesteps], step)


def ddim_step(
    kind: str,
    alphas_cumprod: np.ndarray,
    alphas_cumprod_after: np.ndarray,
    eta: float,
    index: int,
    first: int,
    arrays: Arrays,
) -> Stepped:
    """To the image, and back along the noise that was found there, of which `eta` is new (equations 12 and 16)."""
    now, after = alphas_cumprod[index], alphas_cumprod_after[index]
    noise = noise_in(kind, np.sqrt(now), np.sqrt(1 - now), arrays)
    deviation = eta * np.sqrt((1 - after) / (1 - now) * (1 - now / after)) if eta else 0.0
    back = 1 - after - deviation**2
    # Not below zero but by rounding, unless eta is more than 1: which is refused, as its table is not finite.
    back = np.sqrt(max(back, 0.0) if eta <= 1 else back)
    return np.sqrt(after) * arrays.denoised + back * noise + deviation * arrays.noise, ()


def variance_preserving(timesteps: np.ndarray, alphas_cumprod: np.ndarray, step: Step) -> Plan:
    """The plan of a sampler whose latents keep a deviation of one, at levels of training."""
    return Plan(
        timesteps=timesteps.astype(np.float32),
        alphas=np.sqrt(alphas_cumprod),
        sigmas=np.sqrt(1 - alphas_cumprod),
        initial_scale=1.0,
        step=step,
    )


PLANS: Plans = {"ddim": plan_ddim}
DEFAULTS: Defaults = {
    "DDIMScheduler": {
        **BETAS,
        **ZERO_SNR,
        **CLIPPED,
        "clip_sample": True,
        "set_alpha_to_one": True,
        "thresholding": False,
        "timestep_spacing": "leading",
    },
}
