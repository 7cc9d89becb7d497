"""Euler and its ancestral form (diffusers `scheduling_euler_discrete.py`, `scheduling_euler_ancestral_discrete.py`)."""

import math
from functools import partial

import numpy as np
from jaxtyping import Float32

from promptmill.worker.errors import ConfigError, RequestError
from promptmill.worker.sampling.defaults import BETAS, SIGMA_SCHEDULE, ZERO_SNR, Defaults
from promptmill.worker.sampling.schedule import scheduled_sigmas, spaced, timesteps_of, training_sigmas
from promptmill.worker.sampling.solvers.plan import Arrays, Plan, Plans, Sampling, Step, Stepped
from promptmill.worker.sampling.solvers.settings import Settings


def plan_euler(settings: Settings, sampling: Sampling) -> Plan:
    timesteps, sigmas = timesteps_and_sigmas(settings, sampling)
    if settings.timestep_type == "continuous" and settings.prediction_type == "v_prediction":
        if sampling.timesteps is not None:
            raise RequestError("timesteps are given, but timestep_type is 'continuous', which makes its own")
        timesteps = 0.25 * np.log(sigmas[:-1])
    return variance_exploding(settings, timesteps, sigmas, partial(euler_step, sigmas))


def euler_step(sigmas: np.ndarray, index: int, first: int, arrays: Arrays) -> Stepped:
    """Along the derivative to the next sigma (Karras et al. 2022, algorithm 2 without churn)."""
    sigma, following = sigmas[index : index + 2].astype(np.float64)
    derivative = (arrays.latents - arrays.denoised) / sigma
    return arrays.latents + derivative * (following - sigma), ()


def plan_ancestral(settings: Settings, sampling: Sampling) -> Plan:
    if settings.prediction_type == "sample":
        raise ConfigError("prediction_type is 'sample', which euler_a does not take")
    timesteps = spaced(settings, sampling.steps).astype(np.float32)
    trained = training_sigmas(settings)
    sigmas = np.append(np.interp(timesteps, np.arange(len(trained)), trained), 0).astype(np.float32)
    return variance_exploding(settings, timesteps, sigmas, partial(ancestral_step, sigmas))


def ancestral_step(sigmas: np.ndarray, index: int, first: int, arrays: Arrays) -> Stepped:
    """Below the next sigma by a step of Euler's, and back up to it with new noise."""
    sigma, following = sigmas[index : index + 2].astype(np.float64)
    up = math.sqrt(following**2 * (sigma**2 - following**2) / sigma**2)
    down = math.sqrt(following**2 - up**2)
    derivative = (arrays.latents - arrays.denoised) / sigma
    return arrays.latents + derivative * (down - sigma) + up * arrays.noise, ()


def variance_exploding(
    settings: Settings, timesteps: np.ndarray, sigmas: np.ndarray, step: Step, draws: np.ndarray | None = None
) -> Plan:
    """The plan of a sampler whose latents are the image plus sigma times noise."""
    largest = float(sigmas.max())
    return Plan(
        timesteps=timesteps.astype(np.float32),
        alphas=np.ones(len(timesteps)),
        sigmas=sigmas[: len(timesteps)].astype(np.float64),
        initial_scale=math.hypot(largest, 1) if settings.timestep_spacing == "leading" else largest,
        step=step,
        draws=draws,
    )


def timesteps_and_sigmas(settings: Settings, sampling: Sampling) -> tuple[np.ndarray, Float32[np.ndarray, " M"]]:
    """Euler's timesteps and one more sigma than those; or many more, of which the largest still counts."""
    trained = training_sigmas(settings)
    if sampling.sigmas is not None:
        sigmas = np.array(sampling.sigmas, np.float32)
        return timesteps_of(sigmas[:-1], trained), sigmas
    timesteps, steps = asked_or_spaced(settings, sampling)
    if settings.interpolation_type == "linear":
        sigmas = np.interp(timesteps, np.arange(len(trained)), trained)
    else:
        sigmas = np.exp(np.linspace(np.log(trained[-1]), np.log(trained[0]), steps + 1, dtype=np.float32))
    if settings.sigma_schedule != "uniform":
        sigmas = scheduled_sigmas(settings, sigmas, steps)
        timesteps = timesteps_of(sigmas, trained)
    last = trained[0] if settings.final_sigmas_type == "sigma_min" else 0.0
    return timesteps, np.append(sigmas, last).astype(np.float32)


def asked_or_spaced(settings: Settings, sampling: Sampling) -> tuple[np.ndarray, int]:
    """The timesteps that a job names, or those of its step count; and that count."""
    if sampling.timesteps is not None:
        return np.array(sampling.timesteps, np.float32), len(sampling.timesteps)
    return spaced(settings, sampling.steps).astype(np.float32), sampling.steps


PLANS: Plans = {"euler": plan_euler, "euler_a": plan_ancestral}
DEFAULTS: Defaults = {
    "EulerDiscreteScheduler": {
        **BETAS,
        **SIGMA_SCHEDULE,
        **ZERO_SNR,
        "interpolation_type": "linear",
        "timestep_type": "discrete",
        "final_sigmas_type": "zero",
    },
    "EulerAncestralDiscreteScheduler": {**BETAS, **ZERO_SNR},
}
