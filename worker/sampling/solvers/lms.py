"""Linear multistep (diffusers `scheduling_lms_discrete.py`, after Katherine Crowson's k-diffusion)."""

from dataclasses import replace
from functools import partial

import numpy as np
from numpy.polynomial import Polynomial

from promptmill.worker.sampling.defaults import BETAS, SIGMA_SCHEDULE, Defaults
from promptmill.worker.sampling.solvers.euler import timesteps_and_sigmas, variance_exploding
from promptmill.worker.sampling.solvers.plan import Arrays, Plan, Plans, Sampling, Stepped
from promptmill.worker.sampling.solvers.settings import Settings

ORDER = 4
"""Derivatives that a step goes by at most, as diffusers' pipelines leave it."""


def plan_lms(settings: Settings, sampling: Sampling) -> Plan:
    if settings.sigma_schedule == "karras":
        settings = replace(settings, sigma_min=None, sigma_max=None)  # which this class reads for the others alone
    timesteps, sigmas = timesteps_and_sigmas(settings, sampling)
    return variance_exploding(settings, timesteps, sigmas, partial(lms_step, sigmas))


def lms_step(sigmas: np.ndarray, index: int, first: int, arrays: Arrays) -> Stepped:
    """Along the polynomial through the last derivatives; those before `first` are zero."""
    derivative = (arrays.latents - arrays.denoised) / float(sigmas[index])
    known = (derivative, *arrays.memory[: ORDER - 1])
    weights = adams_weights(sigmas.astype(np.float64), index, min(index + 1, ORDER))
    change = sum((weight * one for weight, one in zip(weights, known, strict=False)), 0 * derivative)
    return arrays.latents + change, known[: ORDER - 1]


def adams_weights(sigmas: np.ndarray, index: int, order: int) -> list[float]:
    """Integrals from one sigma to the next of Lagrange's polynomials through the last `order` sigmas, newest first."""
    nodes = sigmas[index - np.arange(order)]
    weights = []
    for one, node in enumerate(nodes):
        others = np.delete(nodes, one)
        basis = Polynomial.fromroots(others) if order > 1 else Polynomial([1.0])
        integral = basis.integ(lbnd=sigmas[index])
        weights.append(float(integral(sigmas[index + 1]) / np.prod(node - others)))
    return weights


PLANS: Plans = {"lms": plan_lms}
DEFAULTS: Defaults = {"LMSDiscreteScheduler": {**BETAS, **SIGMA_SCHEDULE}}
