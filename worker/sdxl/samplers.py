"""How latents get from noise to image: one pure function a step, one row of `SAMPLERS` a sampler.

A sampler sees noise as diffusers' Euler does: latents are the image plus `sigma` times noise of deviation 1.
All of it is float32, whatever the model computes in.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from worker.sdxl.config import SchedulerConfig
from worker.sdxl.schedule import MAX_STEPS, Schedule, make_schedule


class Row(NamedTuple):
    """One step of each job in a batch."""

    timestep: Float[Array, "B"]
    sigma: Float[Array, "B"]
    next_sigma: Float[Array, "B"]


class Sampler(NamedTuple):
    """`schedule` makes one job's tables on the host; `step` takes latents one step on."""

    schedule: Callable[[SchedulerConfig, int], Schedule]
    step: Callable[[Row, Float[Array, "B H W C"], Float[Array, "B H W C"]], Float[Array, "B H W C"]]


def euler_step(
    row: Row, latents: Float[Array, "B H W C"], denoised: Float[Array, "B H W C"]
) -> Float[Array, "B H W C"]:
    """Along the derivative at `sigma` to `next_sigma` (Karras et al. 2022, algorithm 2 without churn)."""
    derivative = (latents - denoised) / per_image(row.sigma)
    return latents + derivative * per_image(row.next_sigma - row.sigma)


SAMPLERS = {"euler": Sampler(make_schedule, euler_step)}


def pad_tables(schedule: Schedule) -> dict[str, np.ndarray]:
    """One job's tables at the length that all jobs share.

    What is padded on is read for a job that is done, whose step is computed beside the others' and thrown away.
    """
    missing = MAX_STEPS - schedule.steps
    return {
        "timesteps": np.pad(schedule.timesteps, (0, missing)),
        "sigmas": np.pad(schedule.sigmas, (0, missing)),
    }


def row_at(timesteps: Float[Array, "B T"], sigmas: Float[Array, "B T1"], index: Int[Array, ""]) -> Row:
    """The row at `index` of every job's tables."""
    return Row(timesteps[:, index], sigmas[:, index], sigmas[:, index + 1])


def scale_input(row: Row, latents: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
    """Latents at deviation one, which is what the model takes."""
    return latents / per_image(jnp.sqrt(jnp.square(row.sigma) + 1))


def denoise(
    prediction_type: str, row: Row, latents: Float[Array, "B H W C"], prediction: Float[Array, "B H W C"]
) -> Float[Array, "B H W C"]:
    """The image that the model's prediction means, by the scheduler's `prediction_type`."""
    sigma = per_image(row.sigma)
    if prediction_type == "epsilon":
        return latents - sigma * prediction
    if prediction_type == "v_prediction":
        variance = jnp.square(sigma) + 1
        return latents / variance - prediction * (sigma / jnp.sqrt(variance))
    return prediction


def per_image(values: Float[Array, "B"]) -> Float[Array, "B 1 1 1"]:
    return values[:, None, None, None]
