"""How latents get from noise to image: a job's table of steps, and the step that the device takes by it.

Every sampler is linear in what it has: latents, what it remembers, the model's prediction, the image which that
means, and new noise. So each is written once, as a pure function over arrays, and evaluated here on unit vectors:
what comes out is one small matrix an evaluation of the model. A program takes the matrices as an input, and is
the same for all samplers. All of it is float32, whatever the model computes in.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int

from promptmill.producer.families.samplers import (
    MAX_EVALUATIONS,
    SAMPLERS,
    SIGMA_SCHEDULES,
    TIMESTEP_SPACINGS,
    Sampler,
)
from promptmill.worker.errors import RequestError
from promptmill.worker.sampling.config import SchedulerConfig
from promptmill.worker.sampling.schedulers import DEFAULTS, PLANS, resolve
from promptmill.worker.sampling.solvers.plan import SLOTS, Arrays, Plan, Sampling, denoising
from promptmill.worker.sampling.solvers.settings import Settings

STATE = 1 + SLOTS
"""Arrays that go from step to step: the latents, and what a sampler remembers."""


class Table(NamedTuple):
    """One job's sampling in E evaluations of the model; or those of a batch, with B in front.

    Before evaluation i, `denoised = clip(a * latents + b * prediction, -c, c)` with `(a, b, c) = denoise[i]`; after
    it, `state = update[i] @ (*state, prediction, denoised, noise)`, with new noise where `draws[i]` is 1. The first
    latents are `start[0]` times an image's and `start[1]` times noise.
    """

    timesteps: Float32[Any, " E"]
    input_scales: Float32[Any, " E"]
    denoise: Float32[Any, "E 3"]
    update: Float32[Any, "E STATE STATE+3"]
    draws: Float32[Any, " E"]
    start: Float32[Any, "2"]


class Row(NamedTuple):
    """One evaluation of each job in a batch."""

    timestep: Float[Array, " B"]
    input_scale: Float[Array, " B"]
    denoise: Float[Array, "B 3"]
    update: Float[Array, "B STATE STATE+3"]
    draws: Float[Array, " B"]


def draws_noise(sampler: str, eta: float) -> bool:
    """Whether every step of a job draws noise."""
    return SAMPLERS[sampler].draws_noise(eta)


def make_table(config: SchedulerConfig, sampling: Sampling) -> Table:
    """What the device needs to sample as `sampling` says; RequestError or ConfigError where that cannot be done."""
    if sampling.sampler not in SAMPLERS:
        raise RequestError(f"sampler is {sampling.sampler!r}, expected one of {', '.join(SAMPLERS)}")
    sampler = SAMPLERS[sampling.sampler]
    _check_choices(sampler, sampling)
    settings = resolve(config, sampler.scheduler, _asked(sampler, sampling))
    _check_numbers(settings, sampling)
    # What comes to infinity over infinity is found and refused below.
    with np.errstate(all="ignore"):
        table = _tabulate(settings, sampling, sampler)
    if not all(np.isfinite(part).all() for part in (*table[:2], table.denoise[:, :2], *table[3:])):
        raise RequestError(
            f"sampler {sampling.sampler} would divide by zero with this noise schedule, timestep_spacing "
            f"{settings.timestep_spacing} and prediction_type {settings.prediction_type}: choose another spacing, "
            f"sigma schedule or sampler"
        )
    return table


def _tabulate(settings: Settings, sampling: Sampling, sampler: Sampler) -> Table:
    plan = PLANS[sampling.sampler](settings, sampling)
    part = _part(plan, settings, sampling, sampler)
    alphas, sigmas = plan.alphas[part], plan.sigmas[part]
    image, prediction = denoising(settings.prediction_type, alphas, sigmas)
    clips = np.full(len(part), settings.clip_sample_range if settings.clip_sample else np.inf)
    tables = (
        plan.timesteps[part],
        1 / np.hypot(alphas, sigmas),
        np.stack([image, prediction, clips], axis=1),
        np.stack([_update(plan, index, part.start) for index in part]),
        _draws(plan, sampler, sampling)[part],
        _start(plan, part, sampling),
    )
    return Table(*(np.asarray(values, np.float32) for values in tables))


def _update(plan: Plan, index: int, first: int) -> np.ndarray:
    """The step as a matrix: what it makes of unit vectors, each in the place of one array."""
    latents, *memory, prediction, denoised, noise = np.eye(STATE + 3)
    stepped, remembered = plan.step(index, first, Arrays(latents, tuple(memory), prediction, denoised, noise))
    forgotten = [np.zeros(STATE + 3)] * (SLOTS - len(remembered))
    return np.stack([stepped, *remembered, *forgotten])


def _draws(plan: Plan, sampler: Sampler, sampling: Sampling) -> Bool[np.ndarray, " E"]:
    if sampler.draws_noise(sampling.eta) and plan.draws is not None:
        return plan.draws
    return np.full(len(plan.timesteps), sampler.draws_noise(sampling.eta))


def _start(plan: Plan, part: range, sampling: Sampling) -> tuple[float, float]:
    if sampling.denoising_start is not None:
        return 1.0, 0.0
    if sampling.strength is not None:
        return plan.alphas[part.start], plan.sigmas[part.start]
    return 0.0, plan.initial_scale


def _part(plan: Plan, settings: Settings, sampling: Sampling, sampler: Sampler) -> range:
    """The evaluations that a job makes of its plan (diffusers' `get_timesteps` of the SDXL img2img pipeline)."""
    count, begin = len(plan.timesteps), 0
    if sampling.denoising_start is not None:
        left = int((plan.timesteps < _cutoff(settings, sampling.denoising_start)).sum())
        if sampler.evaluations == 2 and left % 2 == 0:
            left += 1  # not between the two evaluations of a step
        begin = count - left
    elif sampling.strength is not None:
        asked = count if sampling.timesteps or sampling.sigmas else sampling.steps
        begin = (asked - min(int(asked * sampling.strength), asked)) * sampler.evaluations
    end = count
    if sampling.denoising_end is not None and sampling.denoising_end < 1:
        end = begin + int((plan.timesteps[begin:] >= _cutoff(settings, sampling.denoising_end)).sum())
    if not 0 <= begin < end:
        raise RequestError(f"no step is left of {count}: raise steps, strength or denoising_end")
    if end - begin > MAX_EVALUATIONS:
        raise RequestError(
            f"{sampling.steps} steps of {sampling.sampler} are {end - begin} evaluations of the model, "
            f"expected {MAX_EVALUATIONS} at most"
        )
    return range(begin, end)


def _cutoff(settings: Settings, share: float) -> int:
    return round(settings.num_train_timesteps - share * settings.num_train_timesteps)


def _asked(sampler: Sampler, sampling: Sampling) -> dict[str, Any]:
    """The fields of the scheduler's configuration that a job sets itself."""
    asked: dict[str, Any] = {}
    if sampling.timestep_spacing is not None:
        asked["timestep_spacing"] = sampling.timestep_spacing
    if sampling.sigma_schedule is not None:
        fields = {f"use_{name}_sigmas": name == sampling.sigma_schedule for name in SIGMA_SCHEDULES} | {
            "use_lu_lambdas": False
        }
        asked |= {name: used for name, used in fields.items() if name in DEFAULTS[sampler.scheduler]}
    return asked


def _check_choices(sampler: Sampler, sampling: Sampling) -> None:
    """Refuse what the sampler has no use for, rather than leave it without effect."""
    _check_word("timestep_spacing", sampling.timestep_spacing, TIMESTEP_SPACINGS)
    _check_word("sigma_schedule", sampling.sigma_schedule, SIGMA_SCHEDULES)
    chosen = {
        "timestep_spacing": sampling.timestep_spacing is not None,
        "sigma_schedule": sampling.sigma_schedule not in (None, "uniform"),
        "timesteps": sampling.timesteps is not None,
        "sigmas": sampling.sigmas is not None,
        "eta": sampling.eta != 0,
    }
    for name, given in chosen.items():
        if given and name not in sampler.takes:
            raise RequestError(f"sampler {sampling.sampler} takes no {name}, got {getattr(sampling, name)!r}")
    if sampling.timesteps is not None and sampling.sigmas is not None:
        raise RequestError("timesteps and sigmas are both given, expected one at most")


def _check_word(name: str, value: str | None, words: tuple[str, ...]) -> None:
    if value is not None and value not in words:
        raise RequestError(f"{name} is {value!r}, expected one of {', '.join(words)}")


def _check_numbers(settings: Settings, sampling: Sampling) -> None:
    most = min(MAX_EVALUATIONS, settings.num_train_timesteps)
    steps = sampling.steps
    if sampling.timesteps is not None:
        steps = len(sampling.timesteps)
        if settings.sigma_schedule != "uniform":
            raise RequestError(f"timesteps are given, but the {settings.sigma_schedule} sigma schedule makes its own")
        if not all(0 <= timestep < settings.num_train_timesteps for timestep in sampling.timesteps):
            raise RequestError(f"timesteps must lie from 0 to {settings.num_train_timesteps - 1}")
    if sampling.sigmas is not None:
        steps = len(sampling.sigmas) - 1
    if not 1 <= steps <= most:
        raise RequestError(f"num_inference_steps must be between 1 and {most}, got {steps}")
    _check_share("denoising_start", sampling.denoising_start, below_one=True)
    _check_share("denoising_end", sampling.denoising_end)
    _check_share("strength", sampling.strength)
    if (sampling.denoising_start or 0) >= (sampling.denoising_end or 1):
        raise RequestError(
            f"denoising_start is {sampling.denoising_start}, expected less than denoising_end, which is "
            f"{sampling.denoising_end}"
        )


def _check_share(name: str, value: float | None, *, below_one: bool = False) -> None:
    if value is not None and not (0 < value < 1 or (value == 1 and not below_one)):
        raise RequestError(f"{name} is {value}, expected more than 0 and {'less than' if below_one else 'at most'} 1")


def pad_table(table: Table) -> Table:
    """One job's table at the length that all jobs share.

    What is padded on is read for a job that is done, whose step is computed beside the others' and thrown away.
    """
    missing = MAX_EVALUATIONS - len(table.timesteps)
    padded = (np.pad(part, [(0, missing)] + [(0, 0)] * (part.ndim - 1)) for part in table[:-1])
    return Table._make([*padded, table.start])


def row_at(tables: Table, index: Int[Array, ""]) -> Row:
    """The row at `index` of every job's table."""
    return Row(*(part[:, index] for part in tables[:-1]))


def initial_state(latents: Float[Array, "B H W C"]) -> Float[Array, "B S H W C"]:
    """Latents beside what nothing is remembered in yet."""
    return jnp.pad(latents[:, None], [(0, 0), (0, SLOTS), (0, 0), (0, 0), (0, 0)])


def scale_input(row: Row, state: Float[Array, "B S H W C"]) -> Float[Array, "B H W C"]:
    """Latents at deviation one, which is what the model takes."""
    return state[:, 0] * per_image(row.input_scale)


def step(
    row: Row,
    state: Float[Array, "B S H W C"],
    prediction: Float[Array, "B H W C"],
    noise: Float[Array, "B H W C"] | None,
) -> Float[Array, "B S H W C"]:
    """One step of every job by its own row; float32 multiply-adds, which no matrix unit rounds."""
    image, predicted, most = (per_image(row.denoise[:, column]) for column in range(3))
    denoised = jnp.clip(image * state[:, 0] + predicted * prediction, -most, most)
    arrays = [*jnp.moveaxis(state, 1, 0), prediction, denoised] + ([] if noise is None else [noise])
    stepped = [
        sum(per_image(row.update[:, into, column]) * array for column, array in enumerate(arrays))
        for into in range(STATE)
    ]
    return jnp.stack(stepped, axis=1)


def per_image(values: Float[Array, " B"]) -> Float[Array, "B 1 1 1"]:
    return values[:, None, None, None]
