"""Against what PyTorch computed once, stored in `references/`; needs no torch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from promptmill.worker.program import AnyProgram
from promptmill.worker.sampling.config import SchedulerConfig
from promptmill.worker.sampling.noise import draw_noise
from promptmill.worker.sampling.samplers import draws_noise, make_table
from promptmill.worker.sdxl.program import Model
from promptmill.worker.sdxl.requests import PlainRequest
from tests.parity import cases, linear, ours

pytestmark = pytest.mark.slow


def reference(name: str) -> dict[str, np.ndarray]:
    with np.load(cases.REFERENCES / f"{name}.npz") as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def parts(model: Model) -> dict[str, Any]:
    return ours.parts(model)


@pytest.fixture(scope="module")
def quiet_parts(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = cases.write_quiet(tmp_path_factory.mktemp("parity") / "quiet", tiny_folder)
    return ours.parts(Model.load(folder, devices=jax.local_devices()[:1]))


@pytest.mark.parametrize("name", ["context", "context_2", "pooled", "unet", "vae"])
def test_each_network_agrees(parts: dict[str, Any], name: str) -> None:
    expected = reference("parts")[name]
    assert parts[name].shape == expected.shape
    assert cases.relative_error(parts[name], expected) < 1e-5


@pytest.mark.parametrize("name", ["context", "context_2", "pooled", "unet", "vae"])
def test_each_network_agrees_where_signals_are_as_small_as_eps(quiet_parts: dict[str, Any], name: str) -> None:
    assert cases.relative_error(quiet_parts[name], reference("quiet")[name]) < 1e-5


@pytest.mark.parametrize("name", cases.NOISE)
def test_the_noise_of_a_seed_agrees(name: str) -> None:
    seed, height, width = cases.NOISE[name]
    expected = reference("noise")[name]
    np.testing.assert_allclose(draw_noise(seed, height, width, 4), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("steps", [steps for steps in cases.STEP_COUNTS if steps < 100])
@pytest.mark.parametrize("name", cases.SCHEDULER_CONFIGS)
def test_schedules_agree(name: str, steps: int) -> None:
    stored = reference("schedules")
    for what, got in ours.schedule(cases.SCHEDULER_CONFIGS[name], steps).items():
        np.testing.assert_allclose(got, stored[f"{name}/{steps}/{what}"], rtol=2e-5, atol=1e-6, err_msg=what)


@pytest.mark.parametrize("name", cases.SCHEDULER_CONFIGS)
def test_trajectories_agree(name: str) -> None:
    """Measured against all of the way, start included: some of these subtract nearly all of a huge start."""
    got = ours.trajectory(cases.SCHEDULER_CONFIGS[name])
    assert cases.relative_error(got, reference("trajectories")[name]) < 1e-5


@pytest.mark.parametrize("name", linear.STORED)
def test_every_sampler_agrees(name: str) -> None:
    sampling, settings = linear.STORED[name]
    stored = reference("samplers")
    draws = iter(stored["draws"]) if draws_noise(sampling.sampler, sampling.eta) else None
    got = linear.visited(make_table(SchedulerConfig(**settings), sampling), linear.NOISE, draws)
    assert cases.relative_error(got, stored[name]) < 1e-5
    # The last latents by themselves: beside a start of 4096 they would not count.
    assert cases.relative_error(got[-1], stored[name][-1]) < 1e-3


@pytest.mark.parametrize("name", cases.IMAGES)
def test_whole_images_agree(program_for: Callable[[PlainRequest], AnyProgram], name: str) -> None:
    request = cases.IMAGES[name]
    got, expected = ours.image(program_for(request), request), reference("images")[name]
    assert got.shape == expected.shape == (request.height, request.width, 3)
    assert cases.psnr(got, expected) >= 60
    assert np.abs(got.astype(int) - expected).max() <= 1
