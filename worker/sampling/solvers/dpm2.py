"""DPM2: DPM-Solver-2 (Lu et al. 2022, arXiv 2206.00927) in Karras's sigmas, and its ancestral form.

As diffusers' `scheduling_k_dpm_2_discrete.py` and `scheduling_k_dpm_2_ancestral_discrete.py` do it: two evaluations per
step, the last step one.
"""

from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from promptmill.worker.errors import ConfigError
from promptmill.worker.sampling.defaults import BETAS, SIGMA_SCHEDULE, Defaults
from promptmill.worker.sampling.schedule import timesteps_of, training_sigmas
from promptmill.worker.sampling.solvers.euler import timesteps_and_sigmas, variance_exploding
from promptmill.worker.sampling.solvers.plan import Arrays, Plan, Plans, Sampling, Stepped
from promptmill.worker.sampling.solvers.settings import Settings


class Sigmas(NamedTuple):
    """Of each step: where it begins, its midpoint, how far down it goes, and what new noise brings it up again."""

    begin: Float32[np.ndarray, " N"]
    middle: Float32[np.ndarray, " N"]
    down: Float32[np.ndarray, " N"]
    up: Float32[np.ndarray, " N"]


def plan_dpm2(settings: Settings, sampling: Sampling, *, ancestral: bool) -> Plan:
    if settings.prediction_type == "sample":
        raise ConfigError(f"prediction_type is 'sample', which {sampling.sampler} does not take")
    timesteps, visited = timesteps_and_sigmas(settings, sampling)
    if settings.sigma_schedule == "karras":
        timesteps = timesteps.round()
    sigmas = _sigmas(visited, ancestral)
    # The last step's midpoint is 0 and the end, where no model is asked.
    levels = np.stack([sigmas.begin, sigmas.middle], axis=1).ravel()[:-1]
    middle_timesteps = timesteps_of(sigmas.middle, training_sigmas(settings))
    interleaved = np.stack([timesteps, middle_timesteps], axis=1).ravel()[:-1]
    draws = np.arange(len(levels)) % 2 == 1 if ancestral else None
    return variance_exploding(settings, interleaved, levels, partial(dpm2_step, sigmas), draws)


def _sigmas(visited: Float32[np.ndarray, " M"], ancestral: bool) -> Sigmas:
    begin, end = visited[:-1], visited[1:]
    # In float32, as diffusers: most of `down` cancels after a long step, and its root decides the midpoint.
    up = np.sqrt(end**2 * (begin**2 - end**2) / begin**2) if ancestral else 0 * end
    down = np.sqrt(end**2 - up**2) if ancestral else end
    # The geometric mean: halfway in the log of sigma.
    return Sigmas(begin, np.sqrt(begin.astype(np.float64) * down).astype(np.float32), down, up)


def dpm2_step(sigmas: Sigmas, index: int, first: int, arrays: Arrays) -> Stepped:
    """To the midpoint by Euler's step; then from where that began, along the midpoint's derivative."""
    begin, middle, down, up = (float(part[index // 2]) for part in sigmas)
    if index % 2 == 0:
        derivative = (arrays.latents - arrays.denoised) / begin
        return arrays.latents + derivative * (middle - begin), (arrays.latents,)
    derivative = (arrays.latents - arrays.denoised) / middle
    return arrays.memory[0] + derivative * (down - begin) + up * arrays.noise, ()


PLANS: Plans = {"dpm2": partial(plan_dpm2, ancestral=False), "dpm2_a": partial(plan_dpm2, ancestral=True)}
DEFAULTS: Defaults = {
    name: {**BETAS, **SIGMA_SCHEDULE, "beta_start": 0.00085, "beta_end": 0.012}
    for name in ("KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler")
}
