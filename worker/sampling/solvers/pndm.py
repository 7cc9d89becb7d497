"""PNDM (Liu et al. 2022, arXiv 2202.09778; diffusers `scheduling_pndm.py`): Runge-Kutta, then linear multistep.

With `skip_prk_steps` multistep alone (PLMS), whose first step is taken twice. Predictions are averaged as the model
makes them, and become noise afterwards.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int

from promptmill.worker.errors import ConfigError, RequestError
from promptmill.worker.sampling.defaults import BETAS, Defaults
from promptmill.worker.sampling.schedule import spaced, training_alphas_cumprod
from promptmill.worker.sampling.solvers.ddim import variance_preserving
from promptmill.worker.sampling.solvers.plan import Arrays, Plan, Plans, Sampling, Stepped
from promptmill.worker.sampling.solvers.settings import Settings

ADAMS = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))
"""By their number less one, the weights of the last predictions, newest first (Adams-Bashforth)."""

RUNGE_KUTTA = (1 / 6, 1 / 3, 1 / 3, 1 / 6)
"""Weights of the four predictions of one step; three steps are taken so."""


def plan_pndm(settings: Settings, sampling: Sampling) -> Plan:
    if settings.prediction_type == "sample":
        raise ConfigError("prediction_type is 'sample', which pndm does not take")
    rising = spaced(settings, sampling.steps).round().astype(int)[::-1]
    stride = settings.num_train_timesteps // sampling.steps
    warm_up = np.array([], int)
    if settings.skip_prk_steps:
        timesteps = np.concatenate([rising[:-1], rising[-2:-1], rising[-1:]])[::-1]
    else:
        warm_up = _runge_kutta_timesteps(rising, stride)
        timesteps = np.concatenate([warm_up, rising[:-3][::-1]])
    if timesteps[0] >= settings.num_train_timesteps:
        raise RequestError(
            f"{sampling.steps} steps begin at timestep {timesteps[0]}, but training had {settings.num_train_timesteps}"
        )
    alphas_cumprod = training_alphas_cumprod(settings).astype(np.float64)
    steps = _Steps(
        settings.prediction_type,
        timesteps,
        warm_up,
        stride,
        alphas_cumprod,
        1.0 if settings.set_alpha_to_one else float(alphas_cumprod[0]),
    )
    return variance_preserving(timesteps, alphas_cumprod[timesteps], steps.step)


def _runge_kutta_timesteps(rising: Int[np.ndarray, " N"], stride: int) -> Int[np.ndarray, " 12"]:
    """Of three steps: where each begins, halfway twice, and where it ends."""
    if len(rising) < 4:
        raise RequestError(
            f"pndm needs 4 steps or more, got {len(rising)}, unless scheduler_config.json says skip_prk_steps"
        )
    halves = np.repeat(rising[-4:], 2) + np.tile([0, stride // 2], 4)
    return np.repeat(halves[:-1], 2)[1:-1][::-1]


@dataclass(frozen=True)
class _Steps:
    """What the steps go by; as diffusers, they count from where sampling began, whatever the timesteps are there."""

    kind: str
    timesteps: Int[np.ndarray, " E"]
    warm_up: Int[np.ndarray, " W"]
    """Those of `timesteps` that are of Runge-Kutta steps: twelve or none."""
    stride: int
    alphas_cumprod: Float64[np.ndarray, " T"]
    last_alpha_cumprod: float
    """Below timestep 0."""

    def step(self, index: int, first: int, arrays: Arrays) -> Stepped:
        multistep = self._multistep if index - first >= len(self.warm_up) else self._runge_kutta
        return multistep(int(self.timesteps[index]), index - first, arrays)

    def _runge_kutta(self, timestep: int, count: int, arrays: Arrays) -> Stepped:
        """Remembers three steps' first predictions, where this one began, and the weighted sum of its predictions."""
        *known, began, total = arrays.memory[:5]
        part = count % 4
        if part == 0:
            known, began, total = [arrays.prediction, *known[:2]], arrays.latents, 0 * arrays.prediction
        total = total + RUNGE_KUTTA[part] * arrays.prediction
        ahead = timestep - (self.stride // 2 if part % 2 == 0 else 0)
        stepped = self._move(began, total if part == 3 else arrays.prediction, int(self.warm_up[count - part]), ahead)
        return stepped, (*known, began, total)

    def _multistep(self, timestep: int, count: int, arrays: Arrays) -> Stepped:
        """Remembers three predictions and, after the first, where that began: the second evaluation mends it."""
        *known, began = arrays.memory[:4]
        if count == 1:
            mean = (arrays.prediction + known[0]) / 2
            return self._move(began, mean, timestep + self.stride, timestep), tuple(known)
        known = [arrays.prediction, *known]
        weights = ADAMS[3 if len(self.warm_up) else min(max(count - 1, 0), 3)]
        along = sum((weight * one for weight, one in zip(weights, known, strict=False)), 0 * arrays.prediction)
        return self._move(arrays.latents, along, timestep, timestep - self.stride), (*known[:3], arrays.latents)

    def _move(self, latents: Any, prediction: Any, timestep: int, following: int) -> Any:
        """Equation 9, from one timestep to another, which may lie before training's first."""
        if timestep >= len(self.alphas_cumprod):
            raise RequestError(f"pndm would begin at timestep {timestep}, but training had {len(self.alphas_cumprod)}")
        now, after = (
            self.alphas_cumprod[timestep],
            self.alphas_cumprod[following] if following >= 0 else self.last_alpha_cumprod,
        )
        if self.kind == "v_prediction":
            prediction = np.sqrt(now) * prediction + np.sqrt(1 - now) * latents
        noise_share = np.sqrt(after / now * (1 - now)) - np.sqrt(1 - after)
        return np.sqrt(after / now) * latents - noise_share * prediction


PLANS: Plans = {"pndm": plan_pndm}
DEFAULTS: Defaults = {
    "PNDMScheduler": {
        **BETAS,
        "skip_prk_steps": False,
        "set_alpha_to_one": False,
        "timestep_spacing": "leading",
    }
}
