"""DPM2: DPM-Solver-2 (Lu et al. 2022, arXiv 2206.00927) in Karras's sigmas; two evaluations a step, the last step one.

As diffusers' `scheduling_k_dpm_2_discrete.py` does it.
"""

from functools import partial

import numpy as np

from promptmill.worker.errors import ConfigError
from promptmill.worker.sampling.defaults import BETAS, SPREADS, Defaults
from promptmill.worker.sampling.schedule import timesteps_of, training_sigmas
from promptmill.worker.sampling.solvers.euler import growing_noise, visits
from promptmill.worker.sampling.solvers.plan import Arrays, Plan, Plans, Sampling, Stepped
from promptmill.worker.sampling.solvers.settings import Settings


def plan_dpm2(settings: Settings, sampling: Sampling) -> Plan:
    if settings.prediction_type == "sample":
        raise ConfigError("prediction_type is 'sample', which dpm2 does not take")
    timesteps, sigmas = visits(settings, sampling)
    if settings.sigma_schedule == "karras":
        timesteps = timesteps.round()
    between = np.sqrt(sigmas[:-1].astype(np.float64) * sigmas[1:]).astype(np.float32)
    # Each sigma is followed by the geometric mean with the next; for the last, whose next is 0, that is 0 and the end.
    levels = np.stack([sigmas[:-1], between], axis=1).ravel()
    middle = timesteps_of(between, training_sigmas(settings))
    interleaved = np.stack([timesteps, middle], axis=1).ravel()[:-1]
    return growing_noise(settings, interleaved, levels, partial(dpm2_step, levels))


def dpm2_step(levels: np.ndarray, index: int, first: int, arrays: Arrays) -> Stepped:
    """To the midpoint by Euler's step; then from where that began, along the midpoint's derivative."""
    sigma = float(levels[index])
    derivative = (arrays.latents - arrays.denoised) / sigma
    if index % 2 == 0:
        return arrays.latents + derivative * (float(levels[index + 1]) - sigma), (arrays.latents,)
    return arrays.memory[0] + derivative * (float(levels[index + 1]) - float(levels[index - 1])), ()


PLANS: Plans = {"dpm2": plan_dpm2}
DEFAULTS: Defaults = {"KDPM2DiscreteScheduler": {**BETAS, **SPREADS, "beta_start": 0.00085, "beta_end": 0.012}}
