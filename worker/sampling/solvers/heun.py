"""Heun's second-order method (diffusers `scheduling_heun_discrete.py`): two evaluations a step, the last step one."""

from functools import partial

import numpy as np

from promptmill.worker.sampling.defaults import BETAS, CLIPPED, SIGMA_SCHEDULE, Defaults
from promptmill.worker.sampling.schedule import scheduled_sigmas, timesteps_of, training_sigmas
from promptmill.worker.sampling.solvers.euler import asked_or_spaced, variance_exploding
from promptmill.worker.sampling.solvers.plan import Arrays, Plan, Plans, Sampling, Stepped
from promptmill.worker.sampling.solvers.settings import Settings


def plan_heun(settings: Settings, sampling: Sampling) -> Plan:
    trained = training_sigmas(settings)
    timesteps, steps = asked_or_spaced(settings, sampling)
    sigmas = np.interp(timesteps, np.arange(len(trained)), trained)
    if settings.sigma_schedule != "uniform":
        sigmas = scheduled_sigmas(settings, sigmas, steps)
        timesteps = timesteps_of(sigmas, trained)
    # Each level but the first is visited twice: to look ahead of one step, and to begin the next.
    sigmas = np.append(np.repeat(sigmas, 2)[1:], 0).astype(np.float32)
    return variance_exploding(settings, np.repeat(timesteps, 2)[1:], sigmas, partial(heun_step, sigmas))


def heun_step(sigmas: np.ndarray, index: int, first: int, arrays: Arrays) -> Stepped:
    """Ahead by Euler's step; then from where that began, along the mean of both derivatives (Karras et al. 2022)."""
    if index % 2 == 0:
        sigma, following = sigmas[index : index + 2].astype(np.float64)
        derivative = (arrays.latents - arrays.denoised) / sigma
        return arrays.latents + derivative * (following - sigma), (derivative, arrays.latents)
    sigma, following = sigmas[index - 1 : index + 1].astype(np.float64)
    before, began = arrays.memory[:2]
    derivative = (before + (arrays.latents - arrays.denoised) / following) / 2
    return began + derivative * (following - sigma), ()


PLANS: Plans = {"heun": plan_heun}
DEFAULTS: Defaults = {
    "HeunDiscreteScheduler": {**BETAS, **SIGMA_SCHEDULE, **CLIPPED, "beta_start": 0.00085, "beta_end": 0.012},
}
