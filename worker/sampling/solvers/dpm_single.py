"""DPM-Solver++ as a single-step solver (Lu et al. 2022, arXiv 2211.01095; `scheduling_dpmsolver_singlestep.py`).

A step of order 2 or 3 is as many evaluations, each of which moves the latents from where the step began.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from promptmill.worker.sampling.defaults import MULTISTEP, Defaults
from promptmill.worker.sampling.solvers.dpm import SOLVER_TYPES, check_dpm, timesteps_and_sigmas
from promptmill.worker.sampling.solvers.levels import Levels
from promptmill.worker.sampling.solvers.plan import Arrays, Plan, Plans, Sampling, Stepped
from promptmill.worker.sampling.solvers.settings import Settings


def plan_single(settings: Settings, sampling: Sampling) -> Plan:
    check_dpm(settings)
    timesteps, sigmas = timesteps_and_sigmas(settings, sampling)
    if settings.sigma_schedule == "karras":
        timesteps = timesteps.round()
    levels = Levels(sigmas)
    return levels.plan(timesteps, partial(single_step, levels, settings))


def single_step(levels: Levels, settings: Settings, index: int, first: int, arrays: Arrays) -> Stepped:
    """From where the step began to the next level, by the images that its evaluations meant until now."""
    began, *older = arrays.memory[:3]
    order = order_at(levels, settings, index, first)
    if order == 1:
        began = arrays.latents
    begin = index + 1 - order
    h = levels.lambdas[index + 1] - levels.lambdas[begin]
    images = [arrays.denoised, *older[: order - 1]][::-1]  # oldest first
    ratios = [(levels.lambdas[begin + after] - levels.lambdas[begin]) / h for after in range(1, order)]
    change = -np.expm1(-h) * images[0] + _change(settings, h, ratios, images)
    stepped = levels.sigmas[index + 1] / levels.sigmas[begin] * began + levels.alphas[index + 1] * change
    return stepped, (began, arrays.denoised, older[0])


def _change(settings: Settings, h: float, ratios: Sequence[float], images: Sequence[Any]) -> Any:
    """What the image's differences from the first add, in units of alpha; `ratios` are their shares of h."""
    slopes = [(image - images[0]) / ratio for image, ratio in zip(images[1:], ratios, strict=True)]
    heun = SOLVER_TYPES[settings.solver_type] == "heun"
    if not slopes:
        return 0 * images[0]
    if len(slopes) == 1 and not heun:
        return -np.expm1(-h) / 2 * slopes[0]
    linear = 1 + np.expm1(-h) / h
    if len(slopes) == 1 or not heun:
        return linear * slopes[-1]
    early, late = ratios
    slope = (late * slopes[0] - early * slopes[1]) / (late - early)
    bend = 2 * (slopes[1] - slopes[0]) / (late - early)
    return linear * slope - ((np.expm1(-h) + h) / h**2 - 0.5) * bend


def order_at(levels: Levels, settings: Settings, index: int, first: int) -> int:
    """1, 2, ... up to the solver's order and again, as far as something is remembered; less at the end."""
    count, most = len(levels.lambdas) - 1, settings.solver_order
    to_zero = settings.final_sigmas_type == "zero"
    if index == count - 1 and (to_zero or (settings.lower_order_final and count % most == 0)):
        return 1
    return min(index % most, index - first) + 1


PLANS: Plans = {"dpm++_2s": plan_single}
DEFAULTS: Defaults = {
    "DPMSolverSinglestepScheduler": {
        name: value
        for name, value in MULTISTEP.items()
        if name not in ("timestep_spacing", "steps_offset", "rescale_betas_zero_snr")
    }
    | {
        "solver_type": "midpoint",
        "lower_order_final": False,
        "lambda_min_clipped": -float("inf"),
        "variance_type": None,
    },
}
