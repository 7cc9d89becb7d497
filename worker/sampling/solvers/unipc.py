"""UniPC (Zhao et al. 2023, arXiv 2302.04867; diffusers `scheduling_unipc_multistep.py`).

A prediction of the next latents, which the evaluation there corrects before it predicts further. So latents that
the model sees are uncorrected ones, and the corrected ones are remembered.
"""

from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float64

from promptmill.worker.errors import ConfigError, RequestError
from promptmill.worker.sampling.defaults import MULTISTEP, Defaults
from promptmill.worker.sampling.schedule import scheduled_sigmas, spaced_above_zero, timesteps_of, training_sigmas
from promptmill.worker.sampling.solvers.levels import Levels, check_multistep
from promptmill.worker.sampling.solvers.plan import Arrays, Plan, Plans, Sampling, Stepped, noise_in
from promptmill.worker.sampling.solvers.settings import Settings

# What other classes call theirs, and UniPC takes for its default.
SOLVER_TYPES = {"bh1": "bh1", "bh2": "bh2"} | dict.fromkeys(("midpoint", "heun", "logrho"), "bh2")


def plan_unipc(settings: Settings, sampling: Sampling) -> Plan:
    check_multistep(settings)
    if settings.solver_type not in SOLVER_TYPES:
        raise ConfigError(f"solver_type is {settings.solver_type!r}, expected bh1 or bh2")
    if settings.solver_p is not None:
        raise ConfigError("solver_p is set, but another predictor than UniPC's is not implemented")
    timesteps, sigmas = timesteps_and_sigmas(settings, sampling.steps)
    levels = Levels(sigmas)
    return levels.plan(timesteps, partial(unipc_step, levels, settings))


def timesteps_and_sigmas(settings: Settings, steps: int) -> tuple[np.ndarray, np.ndarray]:
    trained = training_sigmas(settings)
    if settings.sigma_schedule == "uniform":
        timesteps = spaced_above_zero(settings, steps, settings.num_train_timesteps)
        sigmas = np.interp(timesteps, np.arange(len(trained)), trained)
        lowest = trained[0]
    else:
        sigmas = scheduled_sigmas(settings, trained[::-1], steps)
        timesteps = timesteps_of(sigmas, trained)
        lowest = sigmas[-1]
        if settings.sigma_schedule == "karras":
            timesteps = timesteps.round()
    return timesteps, np.append(sigmas, lowest if settings.final_sigmas_type == "sigma_min" else 0.0)


def unipc_step(levels: Levels, settings: Settings, index: int, first: int, arrays: Arrays) -> Stepped:
    """Correct the latents by what the model says of them, and predict the next ones."""
    *known, began = arrays.memory[:4]
    if settings.predict_x0:
        found = arrays.denoised
    else:
        found = noise_in(settings.prediction_type, levels.alphas[index], levels.sigmas[index], arrays)
    latents = arrays.latents
    if index > first and index - 1 not in settings.disable_corrector:
        order = order_at(levels, settings, index - 1, first)
        latents = advance(levels, settings, index - 1, order, began, known, found)
    known = [found, *known[:2]]
    order = order_at(levels, settings, index, first)
    return advance(levels, settings, index, order, latents, known, None), (*known, latents)


def order_at(levels: Levels, settings: Settings, index: int, first: int) -> int:
    """The solver's order, less at the start, where little is known, and at the end."""
    left = len(levels.lambdas) - 1 - index if settings.lower_order_final else settings.solver_order
    return min(settings.solver_order, left, index - first + 1)


def advance(
    levels: Levels, settings: Settings, index: int, order: int, began: Any, known: list[Any], found: Any | None
) -> Any:
    """From `began` at evaluation `index` to the level after it, by what the model said until then, newest first.

    With what it `found` there, this is the corrector (UniC); without, the predictor (UniP).
    """
    h = levels.lambdas[index + 1] - levels.lambdas[index]
    span = -h if settings.predict_x0 else h
    same, other = (levels.sigmas, levels.alphas) if settings.predict_x0 else (levels.alphas, levels.sigmas)
    ratios = [(levels.lambdas[index - back] - levels.lambdas[index]) / h for back in range(1, order)]
    slopes = [(older - known[0]) / ratio for older, ratio in zip(known[1:order], ratios, strict=True)]
    if found is not None:
        slopes.append(found - known[0])
        ratios.append(1.0)
    unit = span if SOLVER_TYPES[settings.solver_type] == "bh1" else np.expm1(span)
    weights = _weights(ratios, span, unit)
    change = sum((weight * slope for weight, slope in zip(weights, slopes, strict=True)), 0 * began)
    return same[index + 1] / same[index] * began - other[index + 1] * (np.expm1(span) * known[0] + unit * change)


def _weights(ratios: list[float], span: float, unit: float) -> Float64[np.ndarray, " n"]:
    """Of each slope, so that polynomials up to their number are stepped exactly (equation 9)."""
    if len(ratios) < 2:
        return np.full(len(ratios), 0.5)  # by the paper, whatever the unit
    powers = np.vander(ratios, increasing=True).T
    moments, rest, factorial = [], np.expm1(span) / span - 1, 1
    for power in range(1, len(ratios) + 1):
        moments.append(rest * factorial / unit)
        factorial *= power + 1
        rest = rest / span - 1 / factorial
    try:
        return np.linalg.solve(powers, np.array(moments))
    except np.linalg.LinAlgError:
        raise RequestError("two steps of unipc come to the same noise level: choose fewer steps") from None


PLANS: Plans = {"unipc": plan_unipc}
DEFAULTS: Defaults = {
    "UniPCMultistepScheduler": {
        **MULTISTEP,
        "solver_type": "bh2",
        "predict_x0": True,
        "disable_corrector": (),
        "solver_p": None,
    },
}
