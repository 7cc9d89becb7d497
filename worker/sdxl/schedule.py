"""The noise levels of a model's training, and those that a sampler visits: tables, made on the host.

Timesteps count training steps; sigma is the standard deviation of the noise where the image has 1.
Computed in the precisions that diffusers 0.42.1 uses (`scheduling_euler_discrete.py`), float32 tables and
float64 interpolation, because a rounding here moves every step.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

from worker.sdxl.config import SchedulerConfig
from worker.sdxl.errors import RequestError

# Length of every table, so that the step count is an input of the program and not part of its shape.
MAX_STEPS = 1000


@dataclass(frozen=True)
class Schedule:
    """What one job's sampling visits: `steps` timesteps, `steps + 1` sigmas, and the first noise's deviation.

    `steps` can be one more than asked for: trailing spacing rounds so in diffusers for a few counts.
    """

    timesteps: Float32[np.ndarray, "steps"]
    sigmas: Float32[np.ndarray, "steps+1"]
    initial_scale: float

    @property
    def steps(self) -> int:
        return len(self.timesteps)


def make_schedule(config: SchedulerConfig, steps: int) -> Schedule:
    """The schedule of `steps` inference steps; RequestError where the model was not trained with so many."""
    most = min(MAX_STEPS, config.num_train_timesteps)
    if not 1 <= steps <= most:
        raise RequestError(f"num_inference_steps must be between 1 and {most}, got {steps}")
    trained = training_sigmas(config)
    timesteps = SPACINGS[config.timestep_spacing](config, steps)[:MAX_STEPS]
    if config.interpolation_type == "linear":
        sigmas = np.interp(timesteps, np.arange(len(trained)), trained)
    else:
        sigmas = np.exp(np.linspace(np.log(trained[-1]), np.log(trained[0]), steps + 1, dtype=np.float32))
    if config.use_karras_sigmas or config.use_exponential_sigmas:
        spread = _karras if config.use_karras_sigmas else _exponential
        sigmas = spread(*_ends(config, sigmas), steps)
        timesteps = _timesteps_of(sigmas, np.log(trained))
    last = trained[0] if config.final_sigmas_type == "sigma_min" else 0.0
    sigmas = np.concatenate([sigmas, [last]]).astype(np.float32)
    return Schedule(
        timesteps.astype(np.float32),
        sigmas[: len(timesteps) + 1],
        _initial_scale(config, float(sigmas.max())),
    )


def training_sigmas(config: SchedulerConfig) -> Float32[np.ndarray, "T"]:
    """Sigma at each training timestep, rising."""
    betas = BETAS[config.beta_schedule](config).astype(np.float32)
    alphas = np.float32(1) - betas
    if config.rescale_betas_zero_snr:
        alphas = _zero_terminal_snr(alphas)
    # PyTorch's cumprod accumulates float32 in double.
    kept = np.cumprod(alphas, dtype=np.float64).astype(np.float32)
    if config.rescale_betas_zero_snr:
        kept[-1] = 2.0**-24  # diffusers' choice, so that the first sigma is finite
    return np.sqrt((np.float32(1) - kept) / kept)


def _initial_scale(config: SchedulerConfig, largest: float) -> float:
    if config.timestep_spacing == "leading":
        return math.sqrt(largest**2 + 1)
    return largest


def _ends(config: SchedulerConfig, sigmas: np.ndarray) -> tuple[float, float]:
    lowest = float(sigmas[-1]) if config.sigma_min is None else config.sigma_min
    highest = float(sigmas[0]) if config.sigma_max is None else config.sigma_max
    return lowest, highest


def _karras(lowest: float, highest: float, steps: int) -> Float64[np.ndarray, "steps"]:
    """Karras et al. 2022 (arXiv 2206.00364), equation 5, rho 7."""
    low, high = lowest ** (1 / 7), highest ** (1 / 7)
    return (high + np.linspace(0, 1, steps) * (low - high)) ** 7


def _exponential(lowest: float, highest: float, steps: int) -> Float64[np.ndarray, "steps"]:
    return np.exp(np.linspace(math.log(highest), math.log(lowest), steps))


def _timesteps_of(sigmas: np.ndarray, log_trained: np.ndarray) -> np.ndarray:
    """Where in training each sigma lies, between whole timesteps; linear in log sigma."""
    return np.interp(np.log(np.maximum(sigmas, 1e-10)), log_trained, np.arange(len(log_trained)))


def _linspace(config: SchedulerConfig, steps: int) -> np.ndarray:
    return np.linspace(0, config.num_train_timesteps - 1, steps, dtype=np.float32)[::-1]


def _leading(config: SchedulerConfig, steps: int) -> np.ndarray:
    return (np.arange(steps) * (config.num_train_timesteps // steps) + config.steps_offset)[::-1]


def _trailing(config: SchedulerConfig, steps: int) -> np.ndarray:
    return np.arange(config.num_train_timesteps, 0, -config.num_train_timesteps / steps).round() - 1


def _linear(config: SchedulerConfig) -> np.ndarray:
    return np.linspace(config.beta_start, config.beta_end, config.num_train_timesteps, dtype=np.float32)


def _scaled_linear(config: SchedulerConfig) -> np.ndarray:
    ends = math.sqrt(config.beta_start), math.sqrt(config.beta_end)
    return np.linspace(*ends, config.num_train_timesteps, dtype=np.float32) ** 2


def _squared_cosine(config: SchedulerConfig) -> np.ndarray:
    """Nichol and Dhariwal 2021 (arXiv 2102.09672), betas capped at 0.999."""
    times = np.arange(config.num_train_timesteps + 1) / config.num_train_timesteps
    kept = np.cos((times + 0.008) / 1.008 * math.pi / 2) ** 2
    return np.minimum(1 - kept[1:] / kept[:-1], 0.999)


def _zero_terminal_snr(alphas: Float32[np.ndarray, "T"]) -> Float32[np.ndarray, "T"]:
    """Lin et al. 2023 (arXiv 2305.08891), algorithm 1."""
    root = np.sqrt(np.cumprod(alphas, dtype=np.float64).astype(np.float32))
    root = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
    kept = root**2
    betas = np.float32(1) - np.concatenate([kept[:1], kept[1:] / kept[:-1]])
    return np.float32(1) - betas


BETAS = {"linear": _linear, "scaled_linear": _scaled_linear, "squaredcos_cap_v2": _squared_cosine}
SPACINGS = {"linspace": _linspace, "leading": _leading, "trailing": _trailing}
