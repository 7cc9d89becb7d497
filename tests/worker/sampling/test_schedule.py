"""Noise schedules by what must be true of them; tests/parity compares them with diffusers."""

from typing import Any

import numpy as np
import pytest

from promptmill.worker.errors import ConfigError
from promptmill.worker.sampling.config import SchedulerConfig
from promptmill.worker.sampling.schedule import (
    BETAS,
    SIGMA_SCHEDULES,
    scheduled_sigmas,
    timesteps_of,
    training_alphas_cumprod,
    training_sigmas,
)
from promptmill.worker.sampling.schedulers import DEFAULTS, resolve
from promptmill.worker.sampling.solvers.settings import Settings


def settings(scheduler: str = "EulerDiscreteScheduler", **fields: Any) -> Settings:
    return resolve(SchedulerConfig(**fields), scheduler, {})


@pytest.mark.parametrize("schedule", BETAS)
def test_training_goes_from_image_to_noise(schedule: str) -> None:
    scheduler = "HeunDiscreteScheduler" if schedule == "exp" else "EulerDiscreteScheduler"
    sigmas = training_sigmas(settings(scheduler, beta_schedule=schedule))
    assert (np.diff(sigmas) > 0).all() and sigmas[0] < 0.2 and sigmas[-1] > 10


def test_a_zero_terminal_snr_leaves_no_signal_at_the_end() -> None:
    zero = settings(rescale_betas_zero_snr=True)
    assert training_alphas_cumprod(zero)[-1] == 0
    assert training_sigmas(zero)[-1] == pytest.approx(4096, rel=1e-6)


@pytest.mark.parametrize("name", SIGMA_SCHEDULES)
def test_a_spread_goes_from_the_largest_sigma_to_the_smallest(name: str) -> None:
    fields: Any = {f"use_{name}_sigmas": True}
    sigmas = scheduled_sigmas(
        resolve(SchedulerConfig(**fields), "EulerDiscreteScheduler", {}), np.array([14.6, 3.0, 0.03]), 9
    )
    assert len(sigmas) == 9 and (np.diff(sigmas) < 0).all()
    np.testing.assert_allclose(sigmas[[0, -1]], [14.6, 0.03], rtol=1e-6)


def test_a_timestep_and_its_sigma_are_the_same_place() -> None:
    trained = training_sigmas(settings())
    np.testing.assert_allclose(timesteps_of(trained[[0, 1, 500, 999]], trained), [0, 1, 500, 999], atol=1e-3)
    middle = timesteps_of(np.array([np.sqrt(trained[7] * trained[8], dtype=np.float64)]), trained)
    np.testing.assert_allclose(middle, 7.5, atol=1e-3)


def test_each_class_fills_in_its_own_defaults() -> None:
    assert settings("DDIMScheduler").clip_sample and not settings("LCMScheduler").clip_sample
    assert settings("LCMScheduler").beta_start == 0.00085
    assert settings(beta_start=0.1).beta_start == 0.1


@pytest.mark.parametrize("scheduler", DEFAULTS)
def test_a_field_that_a_class_does_not_know_is_dropped(scheduler: str) -> None:
    got = settings(scheduler, clip_sample=True, use_karras_sigmas=True, euler_at_final=True)
    assert got.clip_sample == ("clip_sample" in DEFAULTS[scheduler])
    assert got.use_karras_sigmas == ("use_karras_sigmas" in DEFAULTS[scheduler])
    assert got.euler_at_final == ("euler_at_final" in DEFAULTS[scheduler])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"use_karras_sigmas": True, "use_beta_sigmas": True}, "use_karras_sigmas and use_beta_sigmas are true"),
        ({"beta_schedule": "exp"}, "which EulerDiscreteScheduler does not know"),
        ({"trained_betas": (0.1, 0.2)}, "trained_betas has 2 values, expected 1000"),
    ],
)
def test_what_cannot_be_meant_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(**fields)
    with pytest.raises(ConfigError, match="dynamic thresholding"):
        settings("DDIMScheduler", thresholding=True)
