"""The noise levels of a model's training, and those that a sampler visits: tables, made on the host.

Timesteps count training steps; sigma is the standard deviation of the noise where the image has 1.
Computed in the precisions that diffusers 0.42.1 uses (`scheduling_euler_discrete.py` and its like), float32 tables
and float64 interpolation, because a rounding here moves every step.
"""

import math

import numpy as np
from jaxtyping import Float, Float32, Float64

from promptmill.worker.sampling.solvers.settings import Settings


def training_alphas_cumprod(settings: Settings) -> Float32[np.ndarray, " T"]:
    """The share of the image's variance that is left at each training timestep (`alphas_cumprod`), falling."""
    betas = np.asarray(settings.trained_betas or BETAS[settings.beta_schedule](settings)).astype(np.float32)
    alphas = np.float32(1) - betas
    if settings.rescale_betas_zero_snr:
        alphas = _zero_terminal_snr(alphas)
    # PyTorch's cumprod accumulates float32 in double.
    return np.cumprod(alphas, dtype=np.float64).astype(np.float32)


def training_sigmas(settings: Settings) -> Float32[np.ndarray, " T"]:
    """Sigma at each training timestep, rising."""
    alphas_cumprod = training_alphas_cumprod_above_zero(settings)
    return np.sqrt((np.float32(1) - alphas_cumprod) / alphas_cumprod)


def training_alphas_cumprod_above_zero(settings: Settings) -> Float32[np.ndarray, " T"]:
    """`training_alphas_cumprod`, with diffusers' choice in the place of a zero, so that the first sigma is finite."""
    alphas_cumprod = training_alphas_cumprod(settings)
    if settings.rescale_betas_zero_snr:
        alphas_cumprod[-1] = 2.0**-24
    return alphas_cumprod


def timesteps_of(sigmas: np.ndarray, trained: Float32[np.ndarray, " T"]) -> Float64[np.ndarray, " N"]:
    """Where in training each sigma lies, between whole timesteps; linear in log sigma.

    In diffusers' operations one by one (`_sigma_to_t`), as some samplers cut the fraction off.
    """
    logs, log_trained = np.log(np.maximum(sigmas, 1e-10)), np.log(trained)
    below = np.clip(np.searchsorted(log_trained, logs, side="right") - 1, 0, len(trained) - 2)
    low, high = log_trained[below], log_trained[below + 1]
    weight = np.clip((low - logs) / (low - high), 0, 1)
    return (1 - weight) * below + weight * (below + 1)


def scheduled_sigmas(settings: Settings, sigmas: np.ndarray, steps: int) -> Float64[np.ndarray, " steps"]:
    """`steps` sigmas from the first of `sigmas`, the largest, to the last, by the settings' sigma schedule."""
    lowest = float(sigmas[-1]) if settings.sigma_min is None else settings.sigma_min
    highest = float(sigmas[0]) if settings.sigma_max is None else settings.sigma_max
    return SIGMA_SCHEDULES[settings.sigma_schedule](lowest, highest, steps)


def _karras(lowest: float, highest: float, steps: int) -> Float64[np.ndarray, " steps"]:
    """Karras et al. 2022 (arXiv 2206.00364), equation 5, rho 7."""
    low, high = lowest ** (1 / 7), highest ** (1 / 7)
    return (high + np.linspace(0, 1, steps) * (low - high)) ** 7


def _exponential(lowest: float, highest: float, steps: int) -> Float64[np.ndarray, " steps"]:
    return np.exp(np.linspace(math.log(highest), math.log(lowest), steps))


def _beta(lowest: float, highest: float, steps: int) -> Float64[np.ndarray, " steps"]:
    """Lee et al. 2024 (arXiv 2407.12173): quantiles of a beta distribution, both parameters 0.6."""
    from scipy.stats import beta  # slow to import, and seldom asked for

    return lowest + beta.ppf(1 - np.linspace(0, 1, steps), 0.6, 0.6) * (highest - lowest)


def spaced(settings: Settings, steps: int) -> Float[np.ndarray, " N"]:
    """Timesteps of Euler, Heun and DDIM. `trailing` rounds to one more than `steps` for a few counts."""
    trained = settings.num_train_timesteps
    if settings.timestep_spacing == "linspace":
        return np.linspace(0, trained - 1, steps)[::-1]
    if settings.timestep_spacing == "leading":
        return (np.arange(steps) * (trained // steps) + float(settings.steps_offset))[::-1]
    return np.arange(trained, 0, -trained / steps).round() - 1


def spaced_above_zero(settings: Settings, steps: int, trained: int) -> Float[np.ndarray, " N"]:
    """Timesteps of DPM++ and UniPC: whole ones, of one more than asked for all but the lowest."""
    if settings.timestep_spacing == "linspace":
        return np.linspace(0, trained - 1, steps + 1).round()[:0:-1]
    if settings.timestep_spacing == "leading":
        return (np.arange(steps + 1) * (trained // (steps + 1)))[:0:-1] + float(settings.steps_offset)
    return np.arange(trained, 0, -settings.num_train_timesteps / steps).round() - 1


def _linear(settings: Settings) -> np.ndarray:
    return np.linspace(settings.beta_start, settings.beta_end, settings.num_train_timesteps, dtype=np.float32)


def _scaled_linear(settings: Settings) -> np.ndarray:
    ends = math.sqrt(settings.beta_start), math.sqrt(settings.beta_end)
    return np.linspace(*ends, settings.num_train_timesteps, dtype=np.float32) ** 2


def _squared_cosine(settings: Settings) -> np.ndarray:
    """Nichol and Dhariwal 2021 (arXiv 2102.09672), betas capped at 0.999."""
    times = np.arange(settings.num_train_timesteps + 1) / settings.num_train_timesteps
    return _betas_of(np.cos((times + 0.008) / 1.008 * math.pi / 2) ** 2)


def _falling_exponential(settings: Settings) -> np.ndarray:
    times = np.arange(settings.num_train_timesteps + 1) / settings.num_train_timesteps
    return _betas_of(np.exp(-12 * times))


def _betas_of(alphas_cumprod: np.ndarray) -> np.ndarray:
    return np.minimum(1 - alphas_cumprod[1:] / alphas_cumprod[:-1], 0.999)


def _zero_terminal_snr(alphas: Float32[np.ndarray, " T"]) -> Float32[np.ndarray, " T"]:
    """Lin et al. 2023 (arXiv 2305.08891), algorithm 1."""
    root = np.sqrt(np.cumprod(alphas, dtype=np.float64).astype(np.float32))
    root = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
    alphas_cumprod = root**2
    betas = np.float32(1) - np.concatenate([alphas_cumprod[:1], alphas_cumprod[1:] / alphas_cumprod[:-1]])
    return np.float32(1) - betas


BETAS = {
    "linear": _linear,
    "scaled_linear": _scaled_linear,
    "squaredcos_cap_v2": _squared_cosine,
    "exp": _falling_exponential,
}
SIGMA_SCHEDULES = {"karras": _karras, "exponential": _exponential, "beta": _beta}
