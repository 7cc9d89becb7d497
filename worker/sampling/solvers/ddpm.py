"""DDPM (Ho et al. 2020, arXiv 2006.11239; diffusers `scheduling_ddpm.py`)."""

from functools import partial

import numpy as np

from promptmill.worker.errors import ConfigError, RequestError
from promptmill.worker.sampling.defaults import BETAS, CLIPPED, ZERO_SNR, Defaults
from promptmill.worker.sampling.schedule import spaced, training_alphas_cumprod
from promptmill.worker.sampling.solvers.ddim import variance_preserving
from promptmill.worker.sampling.solvers.plan import Arrays, Plan, Plans, Sampling, Stepped
from promptmill.worker.sampling.solvers.settings import Settings

VARIANCES = ("fixed_small", "fixed_small_log", "fixed_large")


def plan_ddpm(settings: Settings, sampling: Sampling) -> Plan:
    if settings.variance_type not in VARIANCES:
        raise ConfigError(f"variance_type is {settings.variance_type!r}, expected one of {', '.join(VARIANCES)}")
    if sampling.timesteps is not None:
        timesteps = np.array(sampling.timesteps)
        if (np.diff(timesteps) >= 0).any():
            raise RequestError(f"timesteps must decrease, got {', '.join(map(str, sampling.timesteps))}")
    else:
        timesteps = spaced(settings, sampling.steps).round().astype(int)
    if timesteps[0] >= settings.num_train_timesteps:
        raise RequestError(
            f"{sampling.steps} steps begin at timestep {timesteps[0]}, but training had {settings.num_train_timesteps}"
        )
    alphas_cumprod = training_alphas_cumprod(settings).astype(np.float64)[timesteps]
    large = settings.variance_type == "fixed_large"
    return variance_preserving(
        timesteps, alphas_cumprod, partial(ddpm_step, timesteps, np.append(alphas_cumprod, 1.0), large)
    )


def ddpm_step(
    timesteps: np.ndarray, alphas_cumprod: np.ndarray, large: bool, index: int, first: int, arrays: Arrays
) -> Stepped:
    """To the posterior's mean and new noise of its variance, or of the forward process's (`large`); equation 7."""
    now, after = alphas_cumprod[index], alphas_cumprod[index + 1]
    beta = 1 - now / after
    mean = np.sqrt(after) * beta / (1 - now) * arrays.denoised
    mean = mean + np.sqrt(now / after) * (1 - after) / (1 - now) * arrays.latents
    variance = beta if large else (1 - after) / (1 - now) * beta
    return mean + (np.sqrt(variance) if timesteps[index] > 0 else 0.0) * arrays.noise, ()


PLANS: Plans = {"ddpm": plan_ddpm}
DEFAULTS: Defaults = {
    "DDPMScheduler": {
        **BETAS,
        **ZERO_SNR,
        **CLIPPED,
        "clip_sample": True,
        "thresholding": False,
        "timestep_spacing": "leading",
        "variance_type": "fixed_small",
    }
}
