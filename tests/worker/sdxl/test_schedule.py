"""Schedules and the Euler step by what must be true of them; tests/parity compares them with diffusers."""

import jax.numpy as jnp
import numpy as np
import pytest

from worker.sdxl.config import SchedulerConfig
from worker.sdxl.errors import RequestError
from worker.sdxl.samplers import SAMPLERS, Row, denoise, euler_step, pad_tables, row_at, scale_input
from worker.sdxl.schedule import MAX_STEPS, make_schedule

SDXL = SchedulerConfig(
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule="scaled_linear",
    steps_offset=1,
    timestep_spacing="leading",
)


def test_sdxl_starts_where_its_training_ended() -> None:
    schedule = make_schedule(SDXL, 20)
    assert schedule.timesteps.tolist() == [951.0 - 50 * step for step in range(20)]
    assert schedule.sigmas.shape == (21,) and schedule.sigmas[-1] == 0
    assert schedule.initial_scale == pytest.approx(np.hypot(schedule.sigmas[0], 1))


@pytest.mark.parametrize("spacing", ["linspace", "trailing"])
def test_other_spacings_start_at_the_largest_sigma(spacing: str) -> None:
    schedule = make_schedule(SchedulerConfig(timestep_spacing=spacing), 7)
    assert schedule.timesteps[0] == 999
    assert schedule.initial_scale == schedule.sigmas[0]


@pytest.mark.parametrize("steps", [-1, 0, 1001])
def test_a_step_count_without_a_schedule_is_refused(steps: int) -> None:
    with pytest.raises(RequestError, match=f"between 1 and 1000, got {steps}"):
        make_schedule(SDXL, steps)


def test_tables_have_one_length_and_keep_the_schedule_at_their_start() -> None:
    schedule = make_schedule(SDXL, 20)
    tables = pad_tables(schedule)
    assert tables["timesteps"].shape == (MAX_STEPS,) and tables["sigmas"].shape == (MAX_STEPS + 1,)
    assert np.array_equal(tables["sigmas"][:21], schedule.sigmas)


def test_a_row_holds_each_jobs_own_step() -> None:
    sigmas = jnp.array([[3.0, 2.0, 0.0], [9.0, 4.0, 1.0]])
    row = row_at(jnp.array([[30.0, 20.0], [90.0, 40.0]]), sigmas, jnp.int32(1))
    assert row.timestep.tolist() == [20, 40] and row.sigma.tolist() == [2, 4] and row.next_sigma.tolist() == [0, 1]


def test_a_perfect_model_lands_on_the_image_in_any_number_of_steps() -> None:
    image = jnp.linspace(-1, 1, 2 * 3 * 4).reshape(1, 2, 3, 4)
    noise = jnp.cos(jnp.arange(24.0)).reshape(image.shape)
    schedule = make_schedule(SDXL, 9)
    latents = image + schedule.sigmas[0] * noise
    for sigma, following in zip(schedule.sigmas[:-1], schedule.sigmas[1:], strict=True):
        row = Row(jnp.zeros(1), jnp.array([sigma]), jnp.array([following]))
        latents = euler_step(row, latents, denoise("epsilon", row, latents, noise))
    np.testing.assert_allclose(latents, image, atol=1e-5)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_each_kind_of_prediction_means_the_same_image(kind: str) -> None:
    sigma = 3.0
    image, noise = jnp.full((1, 1, 1, 4), 0.5), jnp.full((1, 1, 1, 4), -0.8)
    latents = image + sigma * noise
    scale = 1 / np.sqrt(sigma**2 + 1)
    predictions = {"epsilon": noise, "sample": image, "v_prediction": scale * noise - scale * sigma * image}
    row = Row(jnp.zeros(1), jnp.array([sigma]), jnp.zeros(1))
    np.testing.assert_allclose(denoise(kind, row, latents, predictions[kind]), image, atol=1e-6)
    np.testing.assert_allclose(scale_input(row, latents), latents * scale, rtol=1e-6)


def test_every_sampler_has_a_row() -> None:
    assert set(SAMPLERS) == {"euler"}
