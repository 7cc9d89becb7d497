"""What a caller asks for, and how it becomes the arrays that a program takes. Host work only."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float32, Int32, UInt32

from promptmill.producer.families.samplers import MAX_EVALUATIONS, SAMPLERS
from promptmill.producer.fields import JobFields
from promptmill.worker.errors import RequestError
from promptmill.worker.program import ImageRequest, Prepared
from promptmill.worker.sampling.config import SchedulerConfig
from promptmill.worker.sampling.noise import start_generator
from promptmill.worker.sampling.samplers import Table, draws_noise, make_table, pad_table
from promptmill.worker.sampling.solvers.plan import Sampling
from promptmill.worker.sdxl.config import ModelConfig
from promptmill.worker.sdxl.generate import TEXT_TO_IMAGE, Inputs, Stage
from promptmill.worker.text.prompts import Cut, Tokenizers, tokenize

KEPT_TABLES = 32  # of the last settings, a quarter of a MB each
REFINER_STRENGTH = 0.3  # of diffusers' StableDiffusionXLImg2ImgPipeline, as are the scores
AESTHETIC_SCORE = 6.0
NEGATIVE_AESTHETIC_SCORE = 2.5


class PlainRequest(JobFields):
    """An `ImageRequest` for those who have no job of their own: nothing is checked."""

    __slots__ = ()

    def __init__(self, prompt: str, width: int, height: int, **fields: Any) -> None:
        super().__init__(prompt=prompt, width=width, height=height, **fields)


@dataclass(frozen=True)
class Kind:
    """What a program is compiled for, beside the model and the size of its batch. Sizes in pixels."""

    width: int
    height: int
    guided: bool
    stochastic: bool = False
    prompt_windows: int = 1
    stage: Stage = TEXT_TO_IMAGE
    interval: bool = False
    cached: bool = False


def is_guided(config: ModelConfig, guidance_scale: float) -> bool:
    """Whether a job of this scale takes the negative prompt's pass too, as diffusers decides it."""
    return guidance_scale > 1 and config.unet.time_cond_proj_dim is None


def is_interval(config: ModelConfig, request: ImageRequest) -> bool:
    """Whether a job is guided for part of its steps only."""
    part = request.guidance_start or 0, 1 if request.guidance_end is None else request.guidance_end
    return part != (0, 1) and is_guided(config, request.guidance_scale)


def guided_evaluations(request: ImageRequest, evaluations: int) -> Bool[np.ndarray, " E"]:
    """Which of a stage's evaluations of the model are guided, as diffusers' guiders count steps (`start`, `stop`)."""
    per_step = SAMPLERS[request.sampler].evaluations
    steps = -(-evaluations // per_step)
    end = 1.0 if request.guidance_end is None else request.guidance_end
    step = np.arange(evaluations) // per_step
    return (int((request.guidance_start or 0.0) * steps) <= step) & (step < int(end * steps))


def is_cached(request: ImageRequest) -> bool:
    """Whether the UNet's deep part is kept between evaluations."""
    return (request.cache_interval or 1) > 1


def refreshing_evaluations(runs: Bool[np.ndarray, " E"], cache_interval: int) -> Bool[np.ndarray, " E"]:
    """At which evaluations a pass computes the UNet's deep part: every Nth of those that it runs in, the first too."""
    return runs & ((np.cumsum(runs) - 1) % cache_interval == 0)


def is_stochastic(request: ImageRequest) -> bool:
    """Whether the request's sampler draws noise at each step."""
    return draws_noise(request.sampler, request.eta or 0.0)


def prepare_inputs(
    config: ModelConfig, tokenizers: Tokenizers, requests: Sequence[ImageRequest], kind: Kind
) -> Prepared[Inputs]:
    """One batch's arrays, a row per request."""
    passes = 2 if kind.guided else 1
    texts, texts_2 = zip(*(pair for request in requests for pair in _texts(request, passes)), strict=True)
    tokens, cuts = tokenize(
        tokenizers,
        texts,
        texts_2,
        windows=kind.prompt_windows,
        weighted=[bool(request.prompt_weighting) for request in requests for _ in range(passes)],
    )
    tables = [_tables(config.scheduler, sampling_of(request, kind.stage)) for request in requests]
    drawn = [_draw(config, request, table) for request, (table, _) in zip(requests, tables, strict=True)]
    noise, generators = zip(*drawn, strict=True)
    evaluations = np.array([len(table.timesteps) for table, _ in tables], np.int32)
    guides = _guides(requests, evaluations)
    inputs = Inputs(
        tokens=jax.tree.map(lambda part: part.reshape(len(requests), passes, *part.shape[1:]), tokens),
        layers_skipped=np.array([_layers_skipped(request, passes) for request in requests], np.int32),
        zero_negative=np.array([_zeroes_negative(config, request) for request in requests], bool),
        time_ids=np.array([_time_ids(config, request, kind) for request in requests], np.float32),
        guidance_scale=np.array([request.guidance_scale for request in requests], np.float32),
        guidance_rescale=np.array([request.guidance_rescale or 0 for request in requests], np.float32),
        noise=np.stack(noise),
        generator=np.stack(generators) if kind.stochastic else None,
        latents=np.zeros_like(np.stack(noise)) if kind.stage.start == "latents" else None,
        guides=guides if kind.interval else None,
        refreshes=_refreshes(requests, guides, evaluations, passes) if kind.cached else None,
        evaluations=evaluations,
        tables=Table(*map(np.stack, zip(*(padded for _, padded in tables), strict=True))),
    )
    return Prepared(inputs, [_cut_fields(cuts[at : at + passes]) for at in range(0, len(cuts), passes)])


@lru_cache(KEPT_TABLES)
def _tables(scheduler: SchedulerConfig, sampling: Sampling) -> tuple[Table, Table]:
    """A request's table, and the same padded: a millisecond, and one for all jobs of a run."""
    table = make_table(scheduler, sampling)
    return table, pad_table(table)


def _guides(requests: Sequence[ImageRequest], evaluations: Int32[np.ndarray, " B"]) -> Bool[np.ndarray, "B E"]:
    """Of each request, which evaluations are guided; none after its last."""
    guides = np.zeros((len(requests), MAX_EVALUATIONS), bool)
    for row, request, count in zip(guides, requests, evaluations, strict=True):
        row[:count] = guided_evaluations(request, int(count))
    return guides


def _refreshes(
    requests: Sequence[ImageRequest],
    guides: Bool[np.ndarray, "B E"],
    evaluations: Int32[np.ndarray, " B"],
    passes: int,
) -> Bool[np.ndarray, "B N E"]:
    """Of each request's passes, at which evaluations the deep part is computed; the negative one runs where guided."""
    runs = np.arange(MAX_EVALUATIONS) < evaluations[:, None]
    return np.stack(
        [
            [refreshing_evaluations(row, request.cache_interval or 1) for row in (guided, every)[-passes:]]
            for request, guided, every in zip(requests, guides, runs, strict=True)
        ]
    )


def _cut_fields(cuts: Sequence[Cut | None]) -> dict[str, str]:
    """What was cut off, by the field of the job that it was cut off from."""
    found: dict[str, str] = {}
    for field, cut in zip(("negative_prompt", "prompt")[-len(cuts) :], cuts, strict=True):
        if cut is not None:
            found |= {field: cut.text} | ({} if cut.text_2 == cut.text else {f"{field}_2": cut.text_2})
    return {field: text for field, text in found.items() if text}


def sampling_of(request: ImageRequest, stage: Stage) -> Sampling:
    """What a request asks of the sampler in one of its stages; a refiner goes on where the base model ended."""
    return Sampling(
        sampler=request.sampler,
        steps=request.num_inference_steps,
        timestep_spacing=request.timestep_spacing,
        sigma_schedule=request.sigma_schedule,
        eta=request.eta or 0.0,
        timesteps=None if request.timesteps is None else tuple(request.timesteps),
        sigmas=None if request.sigmas is None else tuple(request.sigmas),
        **_part_of_schedule(request, stage),
    )


def _part_of_schedule(request: ImageRequest, stage: Stage) -> dict[str, float | None]:
    if stage.start == "noise":
        return {"denoising_end": request.denoising_end}
    if request.denoising_end is not None:
        return {"denoising_start": request.denoising_end}
    return {"strength": REFINER_STRENGTH if request.refiner_strength is None else request.refiner_strength}


def check_request(config: ModelConfig, request: ImageRequest, kind: Kind) -> None:
    """RequestError unless the request has the shape that a program is compiled for, and the model can do it."""
    if (request.width, request.height) != (kind.width, kind.height):
        raise RequestError(
            f"width x height is {request.width} x {request.height}, "
            f"but this program renders {kind.width} x {kind.height}"
        )
    if is_guided(config, request.guidance_scale) != kind.guided:
        word = "with" if kind.guided else "without"
        raise RequestError(f"guidance_scale is {request.guidance_scale}, but this program renders {word} guidance")
    if is_interval(config, request) and not kind.interval:
        raise RequestError("guidance_start or guidance_end is given, but this program guides every step")
    if is_cached(request) and not kind.cached:
        raise RequestError("cache_interval is given, but this program runs the whole UNet at each evaluation")
    if request.sampler not in SAMPLERS:
        raise RequestError(f"sampler must be one of {', '.join(SAMPLERS)}; got {request.sampler!r}")
    if is_stochastic(request) and not kind.stochastic:
        raise RequestError(f"sampler {request.sampler} draws noise at each step, but this program draws none")
    if (request.prompt_windows or 1) > kind.prompt_windows:
        raise RequestError(f"prompt_windows is {request.prompt_windows}, but this program takes {kind.prompt_windows}")
    if not 0 <= (request.clip_skip or 0) <= config.most_clip_skip:
        raise RequestError(f"clip_skip must be from 0 to {config.most_clip_skip}, got {request.clip_skip}")


def _draw(
    config: ModelConfig, request: ImageRequest, table: Table
) -> tuple[Float32[np.ndarray, "h w C"], UInt32[np.ndarray, "624"]]:
    """The first noise, and the generator after it; no noise is drawn where none is added, as in diffusers."""
    side = config.vae.scale_factor
    size = request.height // side, request.width // side, config.unet.in_channels
    if table.start[1] == 0:
        return np.zeros(size, np.float32), start_generator(request.seed, 0, 0, 0)[1]
    return start_generator(request.seed, *size)


def _zeroes_negative(config: ModelConfig, request: ImageRequest) -> bool:
    return config.force_zeros_for_empty_prompt and request.negative_prompt is None


def _layers_skipped(request: ImageRequest, passes: int) -> list[int]:
    """diffusers encodes the negative prompt without clip_skip."""
    return [0, request.clip_skip or 0][-passes:]


def _texts(request: ImageRequest, passes: int) -> list[tuple[str, str]]:
    """Each pass's text for either encoder; an empty second one means the first, as in diffusers."""
    text = request.negative_prompt or ""
    both = [(text, request.negative_prompt_2 or text), (request.prompt, request.prompt_2 or request.prompt)]
    return both[-passes:]


def _time_ids(config: ModelConfig, request: ImageRequest, kind: Kind) -> list[list[float]]:
    """The numbers of each pass; diffusers' two pipelines differ in what a missing negative size means."""
    size = request.height, request.width
    original, target = request.original_size or size, request.target_size or size
    crop = request.crops_coords_top_left or (0, 0)
    negative_original, negative_target = request.negative_original_size, request.negative_target_size
    negative_crop = request.negative_crops_coords_top_left or (0, 0)
    if config.requires_aesthetics_score:
        positive = [*original, *crop, _score(request.aesthetic_score, AESTHETIC_SCORE)]
        negative_score = _score(request.negative_aesthetic_score, NEGATIVE_AESTHETIC_SCORE)
        negative = [*(negative_original or original), *negative_crop, negative_score]
    elif kind.stage.start == "latents":
        positive = [*original, *crop, *target]
        # With the positive crop, whatever the negative one says.
        negative = [*(negative_original or original), *crop, *(negative_target or target)]
    else:
        positive = [*original, *crop, *target]
        negative = positive
        if negative_original and negative_target:  # diffusers ignores one alone, and the negative crop with it
            negative = [*negative_original, *negative_crop, *negative_target]
    return [negative, positive] if kind.guided else [positive]


def _score(given: float | None, default: float) -> float:
    return default if given is None else given
