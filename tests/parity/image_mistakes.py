"""Mistakes on the host's side, in what a program is given: each must show in the image that is named."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import pytest

from promptmill.worker.sampling.noise import start_generator
from promptmill.worker.sdxl import program, requests
from promptmill.worker.sdxl.generate import Inputs


@dataclass(frozen=True)
class ImageMistake:
    """What is wrong, which image must show it, and what plants it."""

    says: str
    image: str
    plant: Callable[[pytest.MonkeyPatch], None]


def _returning(name: str, change: Callable[..., Any]) -> Callable[[pytest.MonkeyPatch], None]:
    """A function of `requests.py`, whose result is then changed."""
    right = getattr(requests, name)
    return lambda monkeypatch: monkeypatch.setattr(requests, name, lambda *args: change(right(*args)))


def _given(change: Callable[[Inputs], dict[str, Any]]) -> Callable[[pytest.MonkeyPatch], None]:
    """Other inputs than the request's: the fields that `change` returns."""

    def prepare(*args: Any) -> Any:
        prepared = requests.prepare_inputs(*args)
        return dataclasses.replace(prepared, inputs=prepared.inputs._replace(**change(prepared.inputs)))

    return lambda monkeypatch: monkeypatch.setattr(program, "prepare_inputs", prepare)


def _timesteps(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[pytest.MonkeyPatch], None]:
    return _given(lambda inputs: {"tables": inputs.tables._replace(timesteps=change(inputs.tables.timesteps))})


def _width_first(ids: list[float]) -> list[float]:
    return [value for pair in zip(ids[1::2], ids[::2], strict=True) for value in pair]


def _next_update(inputs: Inputs) -> dict[str, Any]:
    return {"tables": inputs.tables._replace(update=np.roll(inputs.tables.update, -1, axis=1))}


def _one_step_less(inputs: Inputs) -> dict[str, Any]:
    return {"evaluations": inputs.evaluations - 1}


def _smaller_start(inputs: Inputs) -> dict[str, Any]:
    """sigma in the place of sqrt(sigma^2 + 1), which leading spacing begins with."""
    start = inputs.tables.start
    return {"tables": inputs.tables._replace(start=np.sqrt(np.square(start) - np.array([[0, 1]], start.dtype)))}


def _channels_last(inputs: Inputs) -> dict[str, Any]:
    channels_first = np.moveaxis(inputs.noise, -1, 1)
    return {"noise": channels_first.reshape(inputs.noise.shape)}


def _passes_swapped(inputs: Inputs) -> dict[str, Any]:
    return {"tokens": jax.tree.map(lambda part: part[:, ::-1], inputs.tokens), "zero_negative": np.array([False])}


def _started_anew(inputs: Inputs) -> dict[str, Any]:
    return {"generator": start_generator(21, 0, 0, 0)[1][None]}


IMAGE_MISTAKES: dict[str, ImageMistake] = {
    "empty-prompt-for-zeros": ImageMistake(
        "no negative prompt encoded as an empty one, where SDXL has zeros",
        "plain",
        _returning("_zeroes_negative", lambda _: False),
    ),
    "zeros-for-empty-prompt": ImageMistake(
        "zeros for a negative prompt that is empty but given",
        "empty negative prompt",
        _returning("_zeroes_negative", lambda _: True),
    ),
    "time-ids-swapped": ImageMistake(
        "sizes as width, height",
        "micro-conditioning",
        _returning("_time_ids", lambda passes: [_width_first(ids) for ids in passes]),
    ),
    "negative-time-ids": ImageMistake(
        "the positive sizes for both passes",
        "micro-conditioning",
        _returning("_time_ids", lambda passes: [passes[1], passes[1]]),
    ),
    "second-prompt-ignored": ImageMistake(
        "the first prompt for both encoders",
        "second prompts",
        _returning("_texts", lambda pairs: [(first, first) for first, _ in pairs]),
    ),
    "clip-skip-in-both": ImageMistake(
        "clip_skip for the negative prompt too",
        "clip skip 1",
        _returning("_layers_skipped", lambda skipped: [skipped[-1]] * len(skipped)),
    ),
    "passes-swapped": ImageMistake("negative and positive prompt swapped", "negative prompt", _given(_passes_swapped)),
    "rescale-ignored": ImageMistake(
        "guidance_rescale ignored",
        "guidance rescale",
        _given(lambda inputs: {"guidance_rescale": np.zeros_like(inputs.guidance_rescale)}),
    ),
    "sampler-off-by-one": ImageMistake("each step made by the next one's numbers", "plain", _given(_next_update)),
    "one-step-less": ImageMistake("the last step left out", "plain", _given(_one_step_less)),
    "timestep-off-by-one": ImageMistake(
        "steps_offset ignored: each timestep one too low", "plain", _timesteps(lambda timesteps: timesteps - 1)
    ),
    "first-noise-too-small": ImageMistake(
        "first noise of sigma, not of sqrt(sigma^2 + 1)", "plain", _given(_smaller_start)
    ),
    "noise-channels-last": ImageMistake("a seed's noise laid out channels last", "plain", _given(_channels_last)),
    "noise-started-anew": ImageMistake(
        "the steps' noise drawn from the seed's beginning again", "euler_a", _given(_started_anew)
    ),
}
