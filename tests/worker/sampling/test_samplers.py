"""Samplers by what must be true of them all; tests/parity compares each with diffusers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from promptmill.producer.families.samplers import MAX_EVALUATIONS, SAMPLERS
from promptmill.worker.errors import ModelError, RequestError
from promptmill.worker.sampling.config import SchedulerConfig
from promptmill.worker.sampling.samplers import (
    STATE,
    Table,
    draws_noise,
    initial_state,
    make_table,
    pad_table,
    row_at,
    scale_input,
    step,
)
from promptmill.worker.sampling.solvers.plan import Sampling

SDXL = SchedulerConfig(
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule="scaled_linear",
    steps_offset=1,
    timestep_spacing="leading",
    clip_sample=False,
    set_alpha_to_one=True,
)
IMAGE = jnp.linspace(-1, 1, 2 * 3 * 4).reshape(1, 2, 3, 4)
NOISE = jnp.cos(jnp.arange(24.0)).reshape(IMAGE.shape)
TAKES_SAMPLE = [name for name in SAMPLERS if name not in ("euler_a", "dpm2", "dpm2_a", "pndm")]
"""Those whose classes in diffusers know models that predict the image itself."""


def batched(*tables: Table) -> Table:
    return Table(*(jnp.stack(parts) for parts in zip(*map(pad_table, tables), strict=True)))


def test_sdxl_starts_where_its_training_ended() -> None:
    table = make_table(SDXL, Sampling(steps=20))
    assert table.timesteps.tolist() == [951.0 - 50 * step for step in range(20)]
    assert table.start.tolist() == [0, pytest.approx(1 / table.input_scales[0])]


def changed(config: SchedulerConfig, **fields: object) -> SchedulerConfig:
    return SchedulerConfig(**{**config.given, **fields})


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_tables_have_the_shapes_that_all_samplers_share(sampler: str) -> None:
    table = make_table(SDXL, Sampling(sampler=sampler, steps=5))
    count = SAMPLERS[sampler].evaluations_in(5)
    shapes = [part.shape for part in table]
    assert shapes == [(count,), (count,), (count, 3), (count, STATE, STATE + 3), (count,), (2,)]
    padded = pad_table(table)
    assert all(len(part) == MAX_EVALUATIONS for part in padded[:-1])
    assert all(np.array_equal(long[:count], part) for long, part in zip(padded[:-1], table[:-1], strict=True))
    assert all(part.dtype == np.float32 for part in padded)


@pytest.mark.parametrize("sampler", TAKES_SAMPLE)
def test_a_perfect_model_lands_on_the_image(sampler: str) -> None:
    """From any noise: what it says of the image is true at every step."""
    if sampler in ("tcd", "deis"):
        pytest.skip("its last step ends at timestep 0, which has a little noise")
    table = make_table(changed(SDXL, prediction_type="sample"), Sampling(sampler=sampler, steps=9))
    tables, state = batched(table), initial_state(NOISE * table.start[1])
    for index in range(len(table.timesteps)):
        state = step(row_at(tables, jnp.int32(index)), state, IMAGE, jnp.sin(NOISE * index))
    # LCM keeps a share of what it saw, and that of a level where little noise is left.
    np.testing.assert_allclose(state[:, 0], IMAGE, atol=1e-4)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_each_kind_of_prediction_means_the_same_image(sampler: str, kind: str) -> None:
    if kind == "sample" and sampler not in TAKES_SAMPLE:
        pytest.skip("not in diffusers")
    table = make_table(changed(SDXL, prediction_type=kind), Sampling(sampler=sampler, steps=5, strength=1.0))
    alpha, sigma = table.start
    latents = alpha * IMAGE + sigma * NOISE
    # v of latents at deviation one, as all models are trained.
    scale = table.input_scales[0]
    velocity = scale * (alpha * NOISE - sigma * IMAGE)
    prediction = {"epsilon": NOISE, "sample": IMAGE, "v_prediction": velocity}[kind]
    image, predicted, most = table.denoise[0]
    np.testing.assert_allclose(image * latents + predicted * prediction, IMAGE, atol=2e-4)
    assert most == np.inf
    np.testing.assert_allclose(scale * np.hypot(alpha, sigma), 1, rtol=1e-6)


def test_a_row_holds_each_jobs_own_step() -> None:
    tables = batched(make_table(SDXL, Sampling(steps=3)), make_table(SDXL, Sampling(sampler="unipc", steps=7)))
    row = row_at(tables, jnp.int32(1))
    assert row.timestep.tolist() == [tables.timesteps[0, 1], tables.timesteps[1, 1]]
    assert row.update.shape == (2, STATE, STATE + 3)


def test_samplers_side_by_side_in_one_batch_do_what_each_does_alone() -> None:
    each = [make_table(SDXL, Sampling(sampler=name, steps=6)) for name in SAMPLERS]
    latents = jnp.concatenate([NOISE + index for index in range(len(each))])
    together = initial_state(latents)
    alone = [initial_state(latents[index : index + 1]) for index in range(len(each))]
    for index in range(4):
        together = _stepped(batched(*each), index, together)
        alone = [_stepped(batched(table), index, state) for table, state in zip(each, alone, strict=True)]
    np.testing.assert_allclose(together, jnp.concatenate(alone), rtol=1e-6)


@jax.jit
def _stepped(tables: Table, index: jax.Array, state: jax.Array) -> jax.Array:
    row = row_at(tables, index)
    return step(row, state, scale_input(row, state), jnp.sin(state[:, 0]))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_noise_goes_into_those_that_say_so_alone(sampler: str) -> None:
    takes_eta = "eta" in SAMPLERS[sampler].takes
    for eta in (0.0, 0.5) if takes_eta else (0.0,):
        table = make_table(SDXL, Sampling(sampler=sampler, steps=6, eta=eta))
        drawn = table.update[:, :, -1]
        assert drawn[:-1].any() == table.draws.any() == draws_noise(sampler, eta)
        assert not drawn[:, 1:].any() and not drawn[table.draws == 0].any()
    assert draws_noise(sampler, 0.5) == (takes_eta or draws_noise(sampler, 0.0))


def test_a_step_without_noise_compiles_without_it() -> None:
    tables = batched(make_table(SDXL, Sampling(steps=3)))
    row, state = row_at(tables, jnp.int32(0)), initial_state(NOISE)
    np.testing.assert_array_equal(step(row, state, IMAGE, None), step(row, state, IMAGE, NOISE))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_two_parts_of_the_way_are_the_whole(sampler: str) -> None:
    """An ensemble of experts: one ends where the other starts. Those that remember begin anew there."""
    whole = make_table(SDXL, Sampling(sampler=sampler, steps=10))
    base = make_table(SDXL, Sampling(sampler=sampler, steps=10, denoising_end=0.7))
    refiner = make_table(SDXL, Sampling(sampler=sampler, steps=10, denoising_start=0.7))
    joined = np.concatenate([base.timesteps, refiner.timesteps])
    assert refiner.start.tolist() == [1, 0]
    if SAMPLERS[sampler].evaluations == 1:  # others may end between the two evaluations of a step, as in diffusers
        np.testing.assert_array_equal(joined, whole.timesteps)


def test_a_strength_begins_with_an_image_and_its_noise() -> None:
    table = make_table(SDXL, Sampling(steps=10, strength=0.3))
    assert len(table.timesteps) == 3
    assert table.start.tolist() == [1, pytest.approx(np.sqrt(1 / table.input_scales[0] ** 2 - 1), rel=1e-4)]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"sampler": "magic"}, "sampler is 'magic', expected one of euler, euler_a"),
        *(({"steps": steps}, f"between 1 and 1000, got {steps}") for steps in (-1, 0, 1001)),
        ({"sampler": "heun", "steps": 501}, "501 steps of heun are 1001 evaluations"),
        ({"sampler": "pndm", "steps": 3}, "pndm needs 4 steps or more"),
        ({"sampler": "lcm", "steps": 51}, "distilled for 50"),
        ({"timestep_spacing": "random"}, "timestep_spacing is 'random', expected one of leading"),
        ({"sigma_schedule": "odd"}, "sigma_schedule is 'odd', expected one of uniform"),
        ({"sampler": "ddim", "sigma_schedule": "karras"}, "ddim takes no sigma_schedule, got 'karras'"),
        ({"sampler": "lcm", "timestep_spacing": "trailing"}, "lcm takes no timestep_spacing"),
        ({"eta": 0.5}, "euler takes no eta, got 0.5"),
        ({"sampler": "ddim", "eta": -1.0}, "eta is -1.0, expected 0 or more"),
        ({"sampler": "tcd", "eta": 1.5}, "eta is 1.5, expected 0 to 1"),
        ({"sampler": "unipc", "timesteps": (9, 5)}, "unipc takes no timesteps"),
        ({"sampler": "heun", "sigmas": (9.0, 0.0)}, "heun takes no sigmas"),
        ({"timesteps": (9, 5), "sigmas": (9.0, 0.0)}, "both given"),
        ({"timesteps": (9, 5), "sigma_schedule": "karras"}, "the karras sigma schedule makes its own"),
        ({"timesteps": (1000,)}, "timesteps must lie from 0 to 999"),
        ({"sampler": "tcd", "timesteps": (5, 9)}, "timesteps must decrease"),
        ({"sigmas": (3.0, 0.0, 0.0)}, "would divide by zero"),
        ({"denoising_start": 0.0}, "denoising_start is 0.0, expected more than 0 and less than 1"),
        ({"denoising_end": 1.5}, "denoising_end is 1.5, expected more than 0 and at most 1"),
        ({"strength": -0.5}, "strength is -0.5"),
        ({"denoising_start": 0.5, "denoising_end": 0.4}, "expected less than denoising_end"),
        ({"steps": 2, "strength": 0.1}, "no step is left"),
    ],
)
def test_what_no_sampler_does_is_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        make_table(SDXL, Sampling(**asked))


@pytest.mark.parametrize("sampler", ["ddim", "lcm", "tcd"])
def test_noise_alone_cannot_be_told_from_its_prediction(sampler: str) -> None:
    """A zero terminal SNR has no image in its first latents that epsilon could leave over."""
    config = changed(SDXL, rescale_betas_zero_snr=True, timestep_spacing="trailing")
    with pytest.raises(ModelError, match="would divide by zero"):
        make_table(config, Sampling(sampler=sampler, steps=4))
    assert make_table(changed(config, prediction_type="v_prediction"), Sampling(sampler=sampler, steps=4))
