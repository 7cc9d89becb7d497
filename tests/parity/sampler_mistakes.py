"""Mistakes in samplers, each of which the comparison with diffusers has to see."""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from promptmill.worker.sampling import samplers, schedule
from promptmill.worker.sampling.solvers import (
    consistency,
    ddim,
    deis,
    dpm,
    dpm2,
    dpm_single,
    euler,
    heun,
    plan,
    pndm,
    unipc,
)

SAMPLER_MISTAKES: dict[str, tuple[str, Any, str, Any]] = {
    "Euler's sigmas one on": (
        "euler",
        euler,
        "euler_step",
        lambda sigmas, index, first, arrays, step=euler.euler_step: step(
            sigmas, min(index + 1, len(sigmas) - 2), first, arrays
        ),
    ),
    "no root in the size of the first noise": ("euler", math, "hypot", lambda a, b: a),
    "Karras with rho 5": (
        "euler",
        schedule.SIGMA_SCHEDULES,
        "karras",
        lambda low, high, n: (high**0.2 + np.linspace(0, 1, n) * (low**0.2 - high**0.2)) ** 5,
    ),
    "ancestral noise of Euler's whole step": (
        "euler_a",
        euler,
        "ancestral_step",
        lambda sigmas, index, first, arrays: (
            euler.euler_step(sigmas, index, first, arrays)[0] + sigmas[index + 1] * arrays.noise,
            (),
        ),
    ),
    "DPM++ of second order to the end": (
        "dpm++_2m",
        dpm,
        "order_at",
        lambda levels, settings, index, first: min(2, index - first + 1),
    ),
    "UniPC without its corrector": (
        "unipc",
        unipc,
        "unipc_step",
        lambda levels, settings, index, first, arrays, step=unipc.unipc_step: step(
            levels, replace(settings, disable_corrector=tuple(range(99))), index, first, arrays
        ),
    ),
    "UniPC's order one too low at the end": (
        "unipc",
        unipc,
        "order_at",
        lambda levels, settings, index, first: min(
            settings.solver_order, index - first + 1, len(levels.lambdas) - index
        ),
    ),
    "LCM noises its last step": (
        "lcm",
        consistency,
        "lcm_step",
        lambda kept, scaled, index, first, arrays, step=consistency.lcm_step: step(
            np.append(kept, kept[-1]), scaled, index, first, arrays
        ),
    ),
    "Heun averages nothing": (
        "heun",
        heun,
        "heun_step",
        lambda sigmas, index, first, arrays: (
            euler.euler_step(sigmas, index, first, arrays) if index % 2 == 0 else (arrays.latents, ())
        ),
    ),
    "DPM++ single-step of first order": ("dpm++_2s", dpm_single, "order_at", lambda levels, settings, index, first: 1),
    "DEIS of first order": ("deis", deis, "order_at", lambda levels, settings, index, first: 1),
    "DPM2 along the first derivative": (
        "dpm2",
        dpm2,
        "dpm2_step",
        lambda levels, index, first, arrays, step=dpm2.dpm2_step: (
            step(levels, index, first, arrays) if index % 2 == 0 else (arrays.latents, ())
        ),
    ),
    "DPM2 ancestral draws at midpoints too": (
        "dpm2_a",
        samplers,
        "_draws",
        lambda plan, sampler, sampling: np.ones(len(plan.timesteps), bool),
    ),
    "Runge-Kutta's plain mean": ("pndm", pndm, "RUNGE_KUTTA", (1 / 4, 1 / 4, 1 / 4, 1 / 4)),
    "DDIM's levels one timestep on": (
        "ddim",
        ddim,
        "training_alphas_cumprod",
        lambda settings: np.roll(schedule.training_alphas_cumprod(settings), 1),
    ),
    "v taken for epsilon": ("dpm++_2m", samplers, "denoising", lambda kind, a, s: plan.denoising("epsilon", a, s)),
}
