"""DeepCache: one program for every interval, whose bits for a job depend on that job's interval alone."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import pytest

from promptmill.worker.errors import RequestError
from promptmill.worker.program import fetch
from promptmill.worker.sdxl.program import Model, Program
from promptmill.worker.sdxl.requests import PlainRequest, refreshing_evaluations
from tests.worker.sdxl.test_program import counted_compilations

CAT = PlainRequest("a cat in the rain", 64, 64, seed=7, num_inference_steps=6, guidance_scale=5.0)
EVERY_2 = dataclasses.replace(CAT, cache_interval=2)
EVERY_4 = dataclasses.replace(CAT, cache_interval=4, num_inference_steps=9, seed=8)
LATE = dataclasses.replace(EVERY_4, guidance_start=0.4)  # from its fourth step, at which nothing else is due


@pytest.fixture(scope="module")
def one_device(tiny_folder: Path) -> Model:
    return Model.load(tiny_folder, devices=jax.local_devices()[:1])


@pytest.fixture(scope="module")
def cached(one_device: Model) -> Program:
    return one_device.compile(width=64, height=64, guided=True, cached=True, per_device_batch=2)


def render(program: Program, requests: Sequence[PlainRequest]) -> np.ndarray:
    return fetch(program.run(program.prepare(requests)), len(requests)).pixels


def difference(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one.astype(int) - other).max())


@pytest.mark.slow
def test_an_interval_of_one_is_what_the_program_without_a_cache_renders(cached: Program, one_device: Model) -> None:
    whole = one_device.compile(width=64, height=64, guided=True, per_device_batch=2)
    (expected,) = render(whole, [CAT])
    assert difference(render(cached, [CAT])[0], expected) <= 1
    assert difference(render(cached, [EVERY_2])[0], expected) > 20
    with pytest.raises(RequestError, match="but this program runs the whole UNet at each evaluation"):
        whole.prepare([EVERY_2])


@pytest.mark.slow
def test_an_image_has_the_same_bits_whatever_is_due_beside_it(cached: Program) -> None:
    for request in (EVERY_2, EVERY_4):
        (alone,) = render(cached, [request])
        for neighbour in (CAT, EVERY_2, EVERY_4):
            assert np.array_equal(render(cached, [neighbour, request])[1], alone)


@pytest.mark.slow
def test_another_interval_does_not_compile_anew(cached: Program) -> None:
    render(cached, [CAT])
    with counted_compilations() as compiled:
        two, four = render(cached, [EVERY_2, dataclasses.replace(EVERY_2, cache_interval=4)])
        render(cached, [dataclasses.replace(EVERY_2, cache_interval=1000, num_inference_steps=3)])
    assert compiled == []
    assert not np.array_equal(two, four)


@pytest.mark.slow
def test_guidance_for_part_of_the_steps_is_cached_pass_by_pass(one_device: Model, cached: Program) -> None:
    both = one_device.compile(width=64, height=64, guided=True, cached=True, interval=True, per_device_batch=2)
    (alone,) = render(both, [LATE])
    for neighbour in (CAT, EVERY_2, LATE):  # of which two refresh the negative pass before LATE has one
        assert np.array_equal(render(both, [neighbour, LATE])[1], alone)
    in_part = one_device.compile(width=64, height=64, guided=True, interval=True, per_device_batch=2)
    whole = dataclasses.replace(LATE, cache_interval=None)
    assert difference(render(both, [whole])[0], render(in_part, [whole])[0]) <= 1
    assert difference(render(both, [EVERY_4])[0], render(cached, [EVERY_4])[0]) <= 1


@pytest.mark.parametrize(
    ("runs", "interval", "expected"),
    [
        ([1, 1, 1, 1, 1, 0], 2, [1, 0, 1, 0, 1, 0]),
        ([1, 1, 1, 1, 1, 0], 1, [1, 1, 1, 1, 1, 0]),
        ([1, 1, 1, 1, 1, 1], 9, [1, 0, 0, 0, 0, 0]),
        ([0, 1, 1, 1, 1, 0], 3, [0, 1, 0, 0, 1, 0]),  # a pass that begins late has nothing kept before
    ],
)
def test_every_nth_evaluation_of_a_pass_is_whole(runs: list[int], interval: int, expected: list[int]) -> None:
    assert refreshing_evaluations(np.array(runs, bool), interval).astype(int).tolist() == expected
