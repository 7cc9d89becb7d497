"""Each preset is something that the samplers can do."""

from typing import Any

import pytest

from promptmill.producer.families.presets import PRESETS
from promptmill.producer.families.samplers import MAX_HEUN_STEPS, SIGMA_SCHEDULES, TAKEN_BY, TIMESTEP_SPACINGS
from promptmill.producer.families.samplers import SAMPLERS as JOB_SAMPLERS
from promptmill.producer.job import Job
from promptmill.worker.sampling import samplers
from promptmill.worker.sampling.config import SchedulerConfig
from promptmill.worker.sdxl.generate import TEXT_TO_IMAGE
from promptmill.worker.sdxl.requests import is_noisy, sampling_of

SDXL = SchedulerConfig(
    beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, timestep_spacing="leading"
)


@pytest.mark.parametrize("name", PRESETS)
def test_a_presets_schedule_can_be_made(name: str):
    job = Job(prompt="p", **PRESETS[name].job_fields())
    table = samplers.make_table(SDXL, sampling_of(job, TEXT_TO_IMAGE))
    assert len(table.timesteps) == job.num_inference_steps
    assert job.timesteps is None or table.timesteps.tolist() == list(job.timesteps)


def test_both_sides_know_the_same_samplers_and_which_draw_noise():
    assert set(JOB_SAMPLERS) == set(samplers.SAMPLERS)
    for sampler in JOB_SAMPLERS:
        for eta in (None, 0.5) if sampler in ("ddim", "tcd") else (None,):
            job = Job(prompt="p", sampler=sampler, eta=eta)
            assert job.noisy == is_noisy(job), sampler


def test_both_sides_know_which_sampler_takes_what():
    for name, row in samplers.SAMPLERS.items():
        assert {field for field, takers in TAKEN_BY.items() if name in takers} == row.takes, name


def test_the_most_steps_of_heun_fit_a_programs_tables():
    most = make_table_of(num_inference_steps=MAX_HEUN_STEPS)
    assert len(most.timesteps) == 2 * MAX_HEUN_STEPS - 1


def make_table_of(**fields: Any) -> samplers.Table:
    return samplers.make_table(SDXL, sampling_of(Job(prompt="p", sampler="heun", **fields), TEXT_TO_IMAGE))


def test_both_sides_know_the_same_spacings_and_schedules():
    assert set(TIMESTEP_SPACINGS) == set(samplers.SPACINGS)
    assert set(SIGMA_SCHEDULES) == set(samplers.SPREADS)
