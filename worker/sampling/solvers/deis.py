"""DEIS in log rho (Zhang and Chen 2022, arXiv 2204.13902; diffusers `scheduling_deis_multistep.py`)."""

from functools import partial

import numpy as np

from promptmill.worker.errors import ConfigError
from promptmill.worker.sampling.defaults import BETAS, SIGMA_SCHEDULE, Defaults
from promptmill.worker.sampling.schedule import scheduled_sigmas, spaced_above_zero, timesteps_of, training_sigmas
from promptmill.worker.sampling.solvers.levels import Levels, check_multistep
from promptmill.worker.sampling.solvers.plan import Arrays, Plan, Plans, Sampling, Stepped, noise_in
from promptmill.worker.sampling.solvers.settings import Settings

FEW_STEPS = 15
"""Below so many, `lower_order_final` makes the last steps simpler."""

SOLVER_TYPES = ("logrho", "midpoint", "heun", "bh1", "bh2")
"""DEIS's own, and those of other classes, which it takes for it."""


def plan_deis(settings: Settings, sampling: Sampling) -> Plan:
    check_multistep(settings)
    if settings.solver_type not in SOLVER_TYPES:
        raise ConfigError(f"solver_type is {settings.solver_type!r}, expected logrho")
    trained = training_sigmas(settings)
    if settings.sigma_schedule == "uniform":
        timesteps = spaced_above_zero(settings, sampling.steps, settings.num_train_timesteps)
        sigmas = np.interp(timesteps, np.arange(len(trained)), trained)
        last = float(trained[0])
    else:
        sigmas = scheduled_sigmas(settings, trained[::-1], sampling.steps)
        timesteps = timesteps_of(sigmas, trained)
        last = float(sigmas[-1])
        if settings.sigma_schedule == "karras":
            timesteps = timesteps.round()
    levels = Levels(np.append(sigmas, last))
    return levels.plan(timesteps, partial(deis_step, levels, settings))


def deis_step(levels: Levels, settings: Settings, index: int, first: int, arrays: Arrays) -> Stepped:
    """Along the polynomial in log rho through the noise that the last evaluations found; rho is sigma over alpha."""
    noise = noise_in(settings.prediction_type, levels.alphas[index], levels.sigmas[index], arrays)
    known = (noise, *arrays.memory[:2])
    alpha, following = levels.alphas[index], levels.alphas[index + 1]
    weights = rho_weights(levels.sigmas / levels.alphas, index, order_at(levels, settings, index, first))
    change = sum((weight * one for weight, one in zip(weights, known, strict=False)), 0 * noise)
    return following * (arrays.latents / alpha + change), known[:2]


def order_at(levels: Levels, settings: Settings, index: int, first: int) -> int:
    """The solver's order, less at the start, where little is remembered, and at the end of few steps."""
    count = len(levels.lambdas) - 1
    left = count - index if settings.lower_order_final and count < FEW_STEPS else settings.solver_order
    return min(settings.solver_order, left, index - first + 1)


def rho_weights(rho: np.ndarray, index: int, order: int) -> list[float]:
    """Integrals over rho, to the next level, of Lagrange's polynomials in log rho, newest first (equation 15)."""
    start, end = rho[index], rho[index + 1]
    nodes = np.log(rho[index - np.arange(order)])
    weights = []
    for one, node in enumerate(nodes):
        others = np.delete(nodes, one)
        # Of the powers of log rho, the integrals are rho, rho (log - 1) and rho (log^2 - 2 log + 2).
        powers = np.polynomial.polynomial.polyfromroots(others) / np.prod(node - others)
        weights.append(float(sum(c * (m(end) - m(start)) for c, m in zip(powers, MOMENTS, strict=False))))
    return weights


MOMENTS = (
    lambda rho: rho,
    lambda rho: rho * (np.log(rho) - 1),
    lambda rho: rho * (np.log(rho) ** 2 - 2 * np.log(rho) + 2),
)

PLANS: Plans = {"deis": plan_deis}
DEFAULTS: Defaults = {
    "DEISMultistepScheduler": {
        **BETAS,
        **SIGMA_SCHEDULE,
        "thresholding": False,
        "solver_order": 2,
        "solver_type": "logrho",
        "lower_order_final": True,
        "use_flow_sigmas": False,
    }
}
