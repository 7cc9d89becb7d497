"""What all samplers share: what a job asks for, what a sampler plans, and what one step has in its hands.

Latents at a noise level are `alpha * image + sigma * noise`. Euler and Heun keep alpha at 1 and let sigma grow;
the others keep `alpha^2 + sigma^2` at 1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64

from promptmill.worker.sampling.solvers.settings import Settings

SLOTS = 5
"""Arrays that a sampler may remember beside the latents: PNDM needs three predictions, one sample and a sum."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How one job wants to be sampled. None is the model's own way."""

    sampler: str = "euler"
    steps: int = 50
    timestep_spacing: str | None = None
    """leading, linspace or trailing."""
    sigma_schedule: str | None = None
    """karras, exponential, beta, or plain: as the timesteps have them."""
    eta: float = 0.0
    """Of the noise that DDIM and TCD take away, the share that they put back."""
    timesteps: tuple[int, ...] | None = None
    sigmas: tuple[float, ...] | None = None
    """The last one is where sampling ends, most often 0."""
    denoising_start: float | None = None
    """Share of the way that another model has gone already."""
    denoising_end: float | None = None
    strength: float | None = None
    """Share of the way that is gone from an image's latents; None begins with noise alone."""


class Arrays(NamedTuple):
    """What a step has: arrays of one shape, or their coefficients, since steps are linear in all of them."""

    latents: Any
    memory: tuple[Any, ...]
    prediction: Any
    denoised: Any
    noise: Any


Stepped = tuple[Any, tuple[Any, ...]]
"""The new latents, and what to remember, newest first; what is missing is zero."""

Step = Callable[[int, int, Arrays], Stepped]
"""`step(index, first, arrays)`: evaluation `index` of the plan, where sampling began at evaluation `first`."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One job's evaluations of the model, and the step that follows each."""

    timesteps: Float32[np.ndarray, " E"]
    alphas: Float64[np.ndarray, " E"]
    sigmas: Float64[np.ndarray, " E"]
    initial_scale: float
    step: Step
    draws: Bool[np.ndarray, " E"] | None = None
    """After which evaluations a stochastic sampler draws noise; None is after each."""


Plans = dict[str, Callable[[Settings, Sampling], Plan]]
"""By the sampler's name, what plans a job of it: `PLANS` of each solver's file."""


def denoising(kind: str, alpha: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The image is the first times the latents plus the second times the prediction, by `prediction_type`."""
    if kind == "epsilon":
        return 1 / alpha, -sigma / alpha
    if kind == "v_prediction":
        square = alpha**2 + sigma**2
        return alpha / square, -sigma / np.sqrt(square)
    return np.zeros_like(alpha), np.ones_like(alpha)


def noise_in(kind: str, alpha: float, sigma: float, arrays: Arrays) -> Any:
    """The noise that the prediction means, not clipped as the image may be; for alpha^2 + sigma^2 = 1."""
    if kind == "epsilon":
        return arrays.prediction
    if kind == "v_prediction":
        return alpha * arrays.prediction + sigma * arrays.latents
    return (arrays.latents - alpha * arrays.prediction) / sigma
