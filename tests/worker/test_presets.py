"""Each preset is something that the samplers can do."""

from typing import Any

import pytest

from promptmill.producer.families.presets import PRESETS
from promptmill.producer.families.samplers import SAMPLERS, SCHEDULERS
from promptmill.producer.job import Job
from promptmill.worker.sampling import samplers
from promptmill.worker.sampling.config import SchedulerConfig
from promptmill.worker.sampling.schedulers import DEFAULTS, PLANS
from promptmill.worker.sdxl.generate import TEXT_TO_IMAGE
from promptmill.worker.sdxl.requests import is_stochastic, sampling_of

SDXL = SchedulerConfig(
    beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, timestep_spacing="leading"
)


@pytest.mark.parametrize("name", PRESETS)
def test_a_presets_schedule_can_be_made(name: str):
    job = Job(prompt="p", **PRESETS[name].job_fields())
    table = samplers.make_table(SDXL, sampling_of(job, TEXT_TO_IMAGE))
    assert len(table.timesteps) == job.num_inference_steps
    assert job.timesteps is None or table.timesteps.tolist() == list(job.timesteps)


def test_every_sampler_of_the_table_has_its_arithmetic_and_the_other_way_round():
    assert SAMPLERS.keys() == PLANS.keys()
    assert DEFAULTS.keys() == SCHEDULERS


def test_a_job_and_the_request_for_it_agree_on_which_samplers_draw_noise():
    for sampler, row in SAMPLERS.items():
        for eta in (None, 0.5) if "eta" in row.takes else (None,):
            job = Job(prompt="p", sampler=sampler, eta=eta)
            assert job.stochastic == is_stochastic(job), sampler


def test_the_most_steps_of_heun_fit_a_programs_tables():
    most = make_table_of(num_inference_steps=SAMPLERS["heun"].max_steps)
    assert len(most.timesteps) == 999


def make_table_of(**fields: Any) -> samplers.Table:
    return samplers.make_table(SDXL, sampling_of(Job(prompt="p", sampler="heun", **fields), TEXT_TO_IMAGE))
