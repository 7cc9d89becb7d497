"""Guidance for part of the steps: the same pixels as with it, and without it, where all or none of them have it."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import pytest

from promptmill.worker.errors import RequestError
from promptmill.worker.program import fetch
from promptmill.worker.sdxl.program import Model, Program
from promptmill.worker.sdxl.requests import PlainRequest, guided_evaluations
from tests.worker.sdxl.test_program import counted_compilations

CAT = PlainRequest("a cat in the rain", 64, 64, seed=7, num_inference_steps=5, guidance_scale=5.0)
LATE = dataclasses.replace(CAT, guidance_start=0.4)
MIDDLE = dataclasses.replace(CAT, guidance_start=0.2, guidance_end=0.8, num_inference_steps=6)
NEVER = dataclasses.replace(CAT, guidance_end=0.1)  # of 5 steps, none is whole


@pytest.fixture(scope="module")
def one_device(tiny_folder: Path) -> Model:
    return Model.load(tiny_folder, devices=jax.local_devices()[:1])


@pytest.fixture(scope="module")
def in_part(one_device: Model) -> Program:
    return one_device.compile(width=64, height=64, guided=True, interval=True, per_device_batch=2)


def render(program: Program, requests: Sequence[PlainRequest]) -> np.ndarray:
    return fetch(program.run(program.prepare(requests)), len(requests)).pixels


@pytest.mark.slow
def test_all_steps_or_none_are_what_the_other_programs_render(in_part: Program, one_device: Model) -> None:
    guided = one_device.compile(width=64, height=64, guided=True, per_device_batch=2)
    plain = one_device.compile(width=64, height=64, guided=False, per_device_batch=2)
    all_steps, none = render(in_part, [CAT, NEVER])
    off = dataclasses.replace(CAT, guidance_scale=1.0)
    assert np.abs(all_steps.astype(int) - render(guided, [CAT])[0]).max() <= 1
    assert np.abs(none.astype(int) - render(plain, [off])[0]).max() <= 1
    assert np.abs(all_steps.astype(int) - none).max() > 20
    with pytest.raises(RequestError, match="but this program guides every step"):
        guided.prepare([LATE])


@pytest.mark.slow
def test_an_image_has_the_same_bits_whoever_is_guided_beside_it(in_part: Program) -> None:
    for request in (LATE, MIDDLE, NEVER):
        (alone,) = render(in_part, [request])
        for neighbour in (CAT, LATE, NEVER):
            assert np.array_equal(render(in_part, [neighbour, request])[1], alone)


@pytest.mark.slow
def test_another_interval_does_not_compile_anew(in_part: Program) -> None:
    render(in_part, [CAT])
    with counted_compilations() as compiled:
        late, middle = render(in_part, [LATE, MIDDLE])
        render(in_part, [dataclasses.replace(MIDDLE, guidance_end=0.5, guidance_scale=3.0)])
    assert compiled == []
    assert not np.array_equal(late, middle)


@pytest.mark.parametrize(
    ("given", "evaluations", "expected"),
    [
        ({"guidance_end": 0.8}, 5, [1, 1, 1, 1, 0]),
        ({"guidance_start": 0.2, "guidance_end": 0.8}, 5, [0, 1, 1, 1, 0]),
        ({"guidance_start": 0.5}, 3, [0, 1, 1]),
        ({}, 3, [1, 1, 1]),
        ({"guidance_end": 0.5, "sampler": "heun"}, 7, [1, 1, 1, 1, 0, 0, 0]),  # two evaluations a step, the last one
    ],
)
def test_steps_are_counted_as_diffusers_guiders_count(given: dict[str, float], evaluations: int, expected: list[int]):
    request = dataclasses.replace(CAT, **given)  # type: ignore[arg-type]
    assert guided_evaluations(request, evaluations).astype(int).tolist() == expected
