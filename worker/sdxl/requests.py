"""What a caller asks for, and how it becomes the arrays that a program takes. Host work only."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Int32
from transformers import CLIPTokenizer

from worker.sdxl.config import ModelConfig
from worker.sdxl.errors import ConfigError, RequestError
from worker.sdxl.generate import Inputs
from worker.sdxl.noise import draw_noise
from worker.sdxl.samplers import SAMPLERS, pad_tables

Size = tuple[int, int]


class ImageRequest(Protocol):
    """One image. Micro-conditioning sizes are (height, width), as in diffusers; None means its default."""

    @property
    def prompt(self) -> str: ...
    @property
    def prompt_2(self) -> str | None: ...
    @property
    def negative_prompt(self) -> str | None: ...
    @property
    def negative_prompt_2(self) -> str | None: ...
    @property
    def seed(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def num_inference_steps(self) -> int: ...
    @property
    def guidance_scale(self) -> float: ...
    @property
    def original_size(self) -> Size | None: ...
    @property
    def target_size(self) -> Size | None: ...
    @property
    def crops_coords_top_left(self) -> Size | None: ...
    @property
    def negative_original_size(self) -> Size | None: ...
    @property
    def negative_target_size(self) -> Size | None: ...
    @property
    def negative_crops_coords_top_left(self) -> Size | None: ...


@dataclass(frozen=True)
class PlainRequest:
    """An `ImageRequest` for those who have no job of their own, with the defaults of diffusers' pipeline."""

    prompt: str
    width: int
    height: int
    prompt_2: str | None = None
    negative_prompt: str | None = None
    negative_prompt_2: str | None = None
    seed: int = 0
    num_inference_steps: int = 50
    guidance_scale: float = 5.0
    original_size: Size | None = None
    target_size: Size | None = None
    crops_coords_top_left: Size | None = None
    negative_original_size: Size | None = None
    negative_target_size: Size | None = None
    negative_crops_coords_top_left: Size | None = None


class Tokenizers:
    """Both tokenizers of a model, for any thread."""

    def __init__(self, folder: Path) -> None:
        self._tokenizers = [_open_tokenizer(folder / name) for name in ("tokenizer", "tokenizer_2")]
        # A fast tokenizer keeps padding and truncation as state between the setting and the call.
        self._lock = threading.Lock()

    def __call__(self, texts: list[str], texts_2: list[str]) -> list[Int32[np.ndarray, "T L"]]:
        """Ids of each text, padded to the encoder's length; a longer text loses its end, as in diffusers."""
        with self._lock:
            return [
                np.asarray(
                    tokenizer(part, padding="max_length", max_length=tokenizer.model_max_length, truncation=True)[
                        "input_ids"
                    ],
                    np.int32,
                )
                for tokenizer, part in zip(self._tokenizers, (texts, texts_2), strict=True)
            ]


def _open_tokenizer(folder: Path) -> CLIPTokenizer:
    if not folder.is_dir():
        raise ConfigError(f"{folder}: is not there, but the model needs its tokenizer")
    try:
        return CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder}: cannot be read as a CLIP tokenizer: {error}") from error


def is_guided(config: ModelConfig, guidance_scale: float) -> bool:
    """Whether a job of this scale takes the negative prompt's pass too, as diffusers decides it."""
    return guidance_scale > 1 and config.unet.time_cond_proj_dim is None


def prepare_inputs(
    config: ModelConfig,
    tokenizers: Tokenizers,
    requests: Sequence[ImageRequest],
    *,
    sampler: str,
    guided: bool,
) -> Inputs:
    """One batch's arrays, a row a request."""
    texts = [text for request in requests for text in _texts(request, guided=guided)]
    ids, ids_2 = (
        part.reshape(len(requests), -1, part.shape[-1])
        for part in tokenizers([first for first, _ in texts], [second for _, second in texts])
    )
    schedules = [SAMPLERS[sampler].schedule(config.scheduler, request.num_inference_steps) for request in requests]
    tables = [pad_tables(schedule) for schedule in schedules]
    zeroed = [config.force_zeros_for_empty_prompt and request.negative_prompt is None for request in requests]
    noise = [
        _draw(config, request) * np.float32(schedule.initial_scale)
        for request, schedule in zip(requests, schedules, strict=True)
    ]
    return Inputs(
        ids=ids,
        ids_2=ids_2,
        zero_negative=np.array(zeroed, bool),
        time_ids=np.array([_time_ids(request, guided=guided) for request in requests], np.float32),
        guidance_scale=np.array([request.guidance_scale for request in requests], np.float32),
        noise=np.stack(noise),
        steps=np.array([schedule.steps for schedule in schedules], np.int32),
        timesteps=np.stack([table["timesteps"] for table in tables]),
        sigmas=np.stack([table["sigmas"] for table in tables]),
    )


def check_request(config: ModelConfig, request: ImageRequest, *, width: int, height: int, guided: bool) -> None:
    """RequestError unless the request has the shape that a program is compiled for."""
    if (request.width, request.height) != (width, height):
        raise RequestError(
            f"width x height is {request.width} x {request.height}, but this program renders {width} x {height}"
        )
    if is_guided(config, request.guidance_scale) != guided:
        kind = "with" if guided else "without"
        raise RequestError(f"guidance_scale is {request.guidance_scale}, but this program renders {kind} guidance")


def _draw(config: ModelConfig, request: ImageRequest) -> np.ndarray:
    side = config.vae.scale_factor
    return draw_noise(request.seed, request.height // side, request.width // side, config.unet.in_channels)


def _texts(request: ImageRequest, *, guided: bool) -> list[tuple[str, str]]:
    """Each pass's text for either encoder; an empty second one means the first, as in diffusers."""
    positive = request.prompt, request.prompt_2 or request.prompt
    if not guided:
        return [positive]
    text = request.negative_prompt or ""
    return [(text, request.negative_prompt_2 or text), positive]


def _time_ids(request: ImageRequest, *, guided: bool) -> list[list[int]]:
    size = request.height, request.width
    positive = [
        *(request.original_size or size),
        *(request.crops_coords_top_left or (0, 0)),
        *(request.target_size or size),
    ]
    if not guided:
        return [positive]
    # Only both together: diffusers ignores one alone, and the negative crop with it.
    if request.negative_original_size is None or request.negative_target_size is None:
        return [positive, positive]
    crop = request.negative_crops_coords_top_left or (0, 0)
    return [[*request.negative_original_size, *crop, *request.negative_target_size], positive]
