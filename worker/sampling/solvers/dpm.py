"""DPM-Solver++ (Lu et al. 2022, arXiv 2211.01095), plain and SDE (diffusers `scheduling_dpmsolver_multistep.py`)."""

from functools import partial
from typing import Any

import numpy as np

from promptmill.worker.errors import ConfigError
from promptmill.worker.sampling.defaults import MULTISTEP, Defaults
from promptmill.worker.sampling.schedule import (
    scheduled_sigmas,
    spaced_above_zero,
    timesteps_of,
    training_alphas_cumprod_above_zero,
    training_sigmas,
)
from promptmill.worker.sampling.solvers.levels import Levels, check_multistep
from promptmill.worker.sampling.solvers.plan import Arrays, Plan, Plans, Sampling, Stepped
from promptmill.worker.sampling.solvers.settings import Settings

FEW_STEPS = 15
"""Below so many, `lower_order_final` makes the last steps simpler."""

# What other classes call theirs, and DPM++ takes for its default.
SOLVER_TYPES = {"midpoint": "midpoint", "heun": "heun"} | dict.fromkeys(("logrho", "bh1", "bh2"), "midpoint")


def plan_dpm(settings: Settings, sampling: Sampling, *, stochastic: bool) -> Plan:
    check_dpm(settings)
    timesteps, sigmas = timesteps_and_sigmas(settings, sampling)
    levels = Levels(sigmas)
    return levels.plan(timesteps, partial(dpm_step, levels, settings, stochastic))


def check_dpm(settings: Settings) -> None:
    check_multistep(settings)
    if settings.solver_type not in SOLVER_TYPES:
        raise ConfigError(f"solver_type is {settings.solver_type!r}, expected midpoint or heun")
    if settings.variance_type in ("learned", "learned_range"):
        raise ConfigError(
            f"variance_type is {settings.variance_type!r}, but models that predict the variance are not implemented"
        )


def timesteps_and_sigmas(settings: Settings, sampling: Sampling) -> tuple[np.ndarray, np.ndarray]:
    trained = training_sigmas(settings)
    if settings.sigma_schedule == "uniform":
        timesteps = _timesteps(settings, sampling)
        sigmas = np.interp(timesteps, np.arange(len(trained)), trained)
    else:
        sigmas = _scheduled_sigmas(settings, trained, sampling.steps)
        timesteps = timesteps_of(sigmas, trained)
        if settings.sigma_schedule in ("karras", "lu") and settings.beta_schedule != "squaredcos_cap_v2":
            timesteps = timesteps.round()
    last = trained[0] if settings.final_sigmas_type == "sigma_min" else 0.0
    return timesteps, np.append(sigmas, last)


def _timesteps(settings: Settings, sampling: Sampling) -> np.ndarray:
    if sampling.timesteps is not None:
        return np.array(sampling.timesteps)
    alphas_cumprod = training_alphas_cumprod_above_zero(settings)
    lambdas = np.log(np.sqrt(alphas_cumprod)) - np.log(np.sqrt(1 - alphas_cumprod))
    clipped = int(np.searchsorted(lambdas[::-1], settings.lambda_min_clipped))
    return spaced_above_zero(settings, sampling.steps, settings.num_train_timesteps - clipped)


def _scheduled_sigmas(settings: Settings, trained: np.ndarray, steps: int) -> np.ndarray:
    if settings.sigma_schedule == "lu":
        logs = np.log(trained)
        return np.exp(np.linspace(float(logs[-1]), float(logs[0]), steps))
    return scheduled_sigmas(settings, trained[::-1], steps)


def dpm_step(levels: Levels, settings: Settings, stochastic: bool, index: int, first: int, arrays: Arrays) -> Stepped:
    """To the next level by the images that the last evaluations meant; `stochastic` solves the SDE, else the ODE."""
    image, *older = arrays.denoised, *arrays.memory[:2]
    h = levels.lambdas[index + 1] - levels.lambdas[index]
    span = 2 * h if stochastic else h
    fade = levels.sigmas[index + 1] / levels.sigmas[index] * (np.exp(-h) if stochastic else 1)
    taken = -np.expm1(-span)
    change = _change(levels, settings, index, order_at(levels, settings, index, first), image, older, h, span)
    stepped = fade * arrays.latents + levels.alphas[index + 1] * (taken * image + change)
    if stochastic:
        stepped = stepped + levels.sigmas[index + 1] * np.sqrt(-np.expm1(-2 * h)) * arrays.noise
    return stepped, (image, older[0])


def _change(
    levels: Levels, settings: Settings, index: int, order: int, image: Any, older: list[Any], h: float, span: float
) -> Any:
    """What the image's first and second differences add, in units of alpha; `span` is h, or 2h for the SDE."""
    if order == 1:
        return 0 * image
    r0 = (levels.lambdas[index] - levels.lambdas[index - 1]) / h
    slope = (image - older[0]) / r0
    linear = 1 + np.expm1(-span) / span
    if order == 2:
        return (-np.expm1(-span) / 2 if SOLVER_TYPES[settings.solver_type] == "midpoint" else linear) * slope
    r1 = (levels.lambdas[index - 1] - levels.lambdas[index - 2]) / h
    bend = (slope - (older[0] - older[1]) / r1) / (r0 + r1)
    # The paper has +1/2 both times; diffusers has -1/2 for the SDE, and so have its images.
    half = 0.5 if span == h else -0.5
    return linear * (slope + r0 * bend) - ((np.expm1(-span) + span) / span**2 - half) * bend


def order_at(levels: Levels, settings: Settings, index: int, first: int) -> int:
    """The solver's order, less at the start, where little is remembered, and at the end."""
    count = len(levels.lambdas) - 1
    simpler = settings.lower_order_final and count < FEW_STEPS
    if index == count - 1 and (settings.euler_at_final or simpler or settings.final_sigmas_type == "zero"):
        return 1
    if index == count - 2 and simpler:
        return min(settings.solver_order, 2, index - first + 1)
    return min(settings.solver_order, index - first + 1)


PLANS: Plans = {"dpm++_2m": partial(plan_dpm, stochastic=False), "dpm++_2m_sde": partial(plan_dpm, stochastic=True)}
DEFAULTS: Defaults = {
    "DPMSolverMultistepScheduler": {
        **MULTISTEP,
        "solver_type": "midpoint",
        "euler_at_final": False,
        "use_lu_lambdas": False,
        "lambda_min_clipped": -float("inf"),
        "variance_type": None,
    },
}
