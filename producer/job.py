"""Job, JobId, Shape: the contract that both sides keep.

A job is one image to render. It is frozen and valid from its constructor on, and known by its job id: a hash of
everything that decides its pixels. Fields are named as in the call of diffusers' StableDiffusionXLPipeline.
"""

import difflib
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, NewType, TypeVar
from urllib.parse import quote, unquote

from promptmill.producer.errors import JobError

T = TypeVar("T")

JobId = NewType("JobId", str)
"""32 hexadecimal digits: the first 128 bits of a SHA-256."""

JOB_FORMAT = "promptmill-job-1"
"""Hashed in front of every job: raised when the same fields come to mean other pixels."""

SAMPLERS = ("euler", "euler_a", "ddim", "dpm++_2m", "dpm++_2m_sde", "unipc", "lcm", "tcd", "heun")
"""What a job's `sampler` may be; promptmill.worker.sampling.samplers holds the arithmetic (a test compares the two)."""

NOISY_SAMPLERS = ("euler_a", "dpm++_2m_sde", "lcm")
"""Those that draw noise at each step; those that take `eta` do where it is not 0."""

TAKEN_BY = {
    "timestep_spacing": ("euler", "euler_a", "ddim", "dpm++_2m", "dpm++_2m_sde", "unipc", "heun"),
    "sigma_schedule": ("euler", "dpm++_2m", "dpm++_2m_sde", "unipc", "heun"),
    "timesteps": ("euler", "dpm++_2m", "dpm++_2m_sde", "lcm", "tcd", "heun"),
    "sigmas": ("euler",),
    "eta": ("ddim", "tcd"),
}
"""Settings that not every sampler has, and those that do, as in diffusers."""

TIMESTEP_SPACINGS = ("leading", "linspace", "trailing")
SIGMA_SCHEDULES = ("plain", "karras", "exponential", "beta")

SIZE_MULTIPLE = 8  # pixels a latent, in every SDXL VAE
MAX_SIDE = 4096  # pixels; beyond it SDXL draws nothing of use and a mistyped size would fill the device
MAX_STEPS = 1000  # the number of training timesteps
MAX_HEUN_STEPS = 500  # each but the last asks the model twice, and a program's tables end at 1000
MAX_GUIDANCE = 100.0
MAX_SEED = 2**64 - 1  # what torch.Generator.manual_seed takes
MAX_EXACT = 2**53 - 1  # the last whole number that no other one is rounded to as a float
MAX_PROMPT_CHARS = 10_000
MAX_CONDITIONING = 65_536  # pixels, for the size and crop conditioning
MAX_CLIP_SKIP = 31  # layers; the second encoder has 32
MAX_PROMPT_WINDOWS = 8  # windows of 77 tokens, each of which every step attends to
MAX_SIGMA = 1e5  # a zero terminal SNR begins at 4096
MAX_AESTHETIC_SCORE = 10.0  # the scale that the refiner was trained with

_UNFIT = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")  # all of ASCII's controls but tab and newline

ALIASES = {
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "scheduler": "sampler",
}
"""Short and other names under which a field may come in a prompt file."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What XLA compiles for, but for the batch: one compiled program a shape."""

    model: str
    width: int
    height: int
    guided: bool
    noisy: bool = False  # whether the sampler draws noise at each step; else all samplers are one program
    prompt_windows: int = 1
    refiner: str | None = None

    @property
    def key(self) -> str:
        """The shape as one readable string, part of its stream's name in Redis."""
        kind = "+".join(name for name in ("guided", "noisy") if getattr(self, name)) or "plain"
        models = ":".join(quote(name, safe="/@") for name in (self.model, self.refiner) if name is not None)
        return f"{self.width}x{self.height}:{kind}:{self.prompt_windows}:{models}"

    @classmethod
    def from_key(cls, key: str) -> "Shape":
        """The shape whose `key` this is."""
        size, kind, chunks, *models = key.split(":")
        width, height = size.split("x")
        model, refiner = (*map(unquote, models), None)[:2]
        assert model is not None
        return cls(model, int(width), int(height), "guided" in kind, "noisy" in kind, int(chunks), refiner)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One image to render.

    `width` and `height` are pixels, multiples of 8. The pairs of conditioning are `(height, width)` or
    `(top, left)` in pixels, as in diffusers; `None` means what it means there: the image's own size, and no crop.
    `negative_prompt=None` means zeros where the model says so (SDXL does), `""` means the encoding of an empty text.
    `guidance_scale` at or under 1 turns guidance off.

    `timestep_spacing` and `sigma_schedule` stand in for the model's own, `timesteps` or `sigmas` for all of it.
    `refiner` names a second model, which takes over at `denoising_end` (a fraction of the noise schedule, as an
    ensemble of experts) or, where that is `None`, renders the finished latents anew with `refiner_strength`.
    A longer prompt than one window of 77 tokens is cut unless `prompt_windows` is more; `prompt_weighting` gives
    `(word:1.3)` its meaning. `None` is off, or diffusers' default, and leaves the job id alone.

    Raises JobError, which names the field, what was got and what was expected.
    """

    prompt: str
    prompt_2: str | None = None
    negative_prompt: str | None = None
    negative_prompt_2: str | None = None
    seed: int = 0
    width: int = 1024
    height: int = 1024
    num_inference_steps: int = 50
    guidance_scale: float = 5.0
    sampler: str = "euler"
    model: str = "stabilityai/stable-diffusion-xl-base-1.0"
    original_size: tuple[int, int] | None = None
    target_size: tuple[int, int] | None = None
    crops_coords_top_left: tuple[int, int] | None = None
    negative_original_size: tuple[int, int] | None = None
    negative_target_size: tuple[int, int] | None = None
    negative_crops_coords_top_left: tuple[int, int] | None = None
    timestep_spacing: str | None = None
    sigma_schedule: str | None = None
    timesteps: tuple[int, ...] | None = None
    sigmas: tuple[float, ...] | None = None
    eta: float | None = None
    guidance_rescale: float | None = None
    clip_skip: int | None = None
    prompt_windows: int | None = None
    prompt_weighting: bool | None = None
    denoising_end: float | None = None
    refiner: str | None = None
    refiner_strength: float | None = None
    aesthetic_score: float | None = None
    negative_aesthetic_score: float | None = None

    def __post_init__(self) -> None:
        for field, check in _CHECKS.items():
            value = getattr(self, field)
            if value is None and field in _OPTIONAL:
                continue
            value = check(field, value)
            off = field in _OFF and value == _OFF[field]  # said or not said, it is one job
            object.__setattr__(self, field, None if off else value)
        _check_together(self)

    @property
    def guided(self) -> bool:
        """Whether the UNet runs for the negative prompt too."""
        return self.guidance_scale > 1.0

    @property
    def noisy(self) -> bool:
        """Whether its sampler draws noise at each step."""
        return self.sampler in NOISY_SAMPLERS or self.eta is not None

    @property
    def shape(self) -> Shape:
        """What has to be compiled for this job."""
        chunks = self.prompt_windows or 1
        return Shape(self.model, self.width, self.height, self.guided, self.noisy, chunks, self.refiner)

    def fields(self) -> dict[str, Any]:
        """The job's fields as JSON values, without those that are `None`."""
        values = {name: getattr(self, name) for name in FIELD_NAMES}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            if value is not None
        }

    def to_json(self) -> str:
        """Canonical JSON: equal jobs give equal bytes. A field added later leaves the ids of older jobs alone."""
        return canonical_json(self.fields())

    @property
    def id(self) -> JobId:
        """The hash of everything that decides the job's pixels."""
        digest = hashlib.sha256(f"{JOB_FORMAT}\n{self.to_json()}".encode()).hexdigest()
        return JobId(digest[:32])

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> "Job":
        """The job that a row of a prompt file means.

        Raises JobError for an unknown field (with the nearest known one), a field under two names, a wrong value.
        """
        known = canonical_names(fields)
        if "prompt" not in known:
            raise JobError("prompt", "is missing")
        return cls(**known)


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces, so that equal values give equal text."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def canonical_names(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The same fields under their own names: `steps` becomes `num_inference_steps`. Raises JobError."""
    named: dict[str, Any] = {}
    for name, value in fields.items():
        field = ALIASES.get(name, name)
        if field not in FIELD_NAMES:
            raise JobError(_name(name), _unknown(name))
        if field in named:
            raise JobError(name, f"is given twice: {field} and its other name mean the same")
        named[field] = value
    return named


def _name(name: str) -> str:
    """A field's name as the user wrote it, fit for a message of one line."""
    return name if len(name) <= 60 and name.isprintable() and name else _kind(name)


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, [*FIELD_NAMES, *ALIASES], n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f" (known: {', '.join(FIELD_NAMES)})"
    return f"is not a field of a job{hint}"


def check_text(field: str, value: Any) -> str:
    """Text that can be tokenised and stored: UTF-8, no control characters but newline and tab. Raises JobError."""
    if not isinstance(value, str):
        raise JobError(field, f"must be text, got {_kind(value)}")
    if len(value) > MAX_PROMPT_CHARS:
        raise JobError(field, f"must be at most {MAX_PROMPT_CHARS} characters, got {len(value)}")
    check_characters(field, value)
    return value


def check_characters(field: str, text: str) -> None:
    """Raises JobError for control characters but newline and tab, and for what is no Unicode."""
    bad = _UNFIT.search(text)
    if bad:
        what = "half a surrogate pair" if bad[0] >= "\ud800" else "a control character"
        raise JobError(field, f"has {what} (U+{ord(bad[0]):04X}) at character {bad.start() + 1}")


def _prompt(field: str, value: Any) -> str:
    text = check_text(field, value)
    if not text.strip():
        raise JobError(field, "is empty")
    return text


def _whole(low: int, high: int) -> Callable[[str, Any], int]:
    def check(field: str, value: Any) -> int:
        if isinstance(value, float) and value.is_integer():
            if abs(value) > MAX_EXACT:
                why = f"{_kind(value)} is a float, and those beyond 2^53 are rounded"
                raise JobError(field, f"must be written as a whole number: {why}")
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise JobError(field, f"must be a whole number, got {_kind(value)}")
        if not low <= value <= high:
            raise JobError(field, f"must be from {low} to {high}, got {_kind(value)}")
        return value

    return check


def _side(field: str, value: Any) -> int:
    side = _whole(SIZE_MULTIPLE, MAX_SIDE)(field, value)
    if side % SIZE_MULTIPLE:
        raise JobError(field, f"must be a multiple of {SIZE_MULTIPLE}, got {side}")
    return side


def _number(low: float, high: float) -> Callable[[str, Any], float]:
    def check(field: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise JobError(field, f"must be a number, got {_kind(value)}")
        if not low <= value <= high:  # a NaN is neither
            raise JobError(field, f"must be from {low:g} to {high:g}, got {_kind(value)}")
        return float(value) + 0.0  # -0.0 and 0.0 are one job

    return check


def _between_0_and_1(most: str) -> Callable[[str, Any], float]:
    def check(field: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise JobError(field, f"must be a number, got {_kind(value)}")
        if not 0 < value <= 1 or (value == 1 and most == "less than"):
            raise JobError(field, f"must be more than 0 and {most} 1, got {_kind(value)}")
        return float(value)

    return check


def _one_of(names: tuple[str, ...]) -> Callable[[str, Any], str]:
    def check(field: str, value: Any) -> str:
        if value not in names:
            raise JobError(field, f"must be one of {', '.join(names)}; got {_kind(value)}")
        return str(value)

    return check


def _flag(field: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise JobError(field, f"must be true or false, got {_kind(value)}")
    return value


def _list_of(check_item: Callable[[str, Any], T]) -> Callable[[str, Any], tuple[T, ...]]:
    def check(field: str, value: Any) -> tuple[T, ...]:
        if not isinstance(value, list | tuple) or not 1 <= len(value) <= MAX_STEPS:
            raise JobError(field, f"must be a list of 1 to {MAX_STEPS} numbers, got {_kind(value)}")
        return tuple(check_item(field, item) for item in value)

    return check


def _check_together(job: Job) -> None:
    """What two fields must not say at once."""
    if job.timesteps is not None and job.sigmas is not None:
        raise JobError("sigmas", "cannot be given together with timesteps: either is the whole schedule")
    if job.refiner is None and job.refiner_strength is not None:
        raise JobError("refiner_strength", "needs a refiner")
    if job.refiner_strength is not None and job.denoising_end is not None:
        raise JobError("refiner_strength", "cannot be given together with denoising_end: that says where it begins")
    for field, samplers in TAKEN_BY.items():
        if getattr(job, field) is not None and job.sampler not in samplers:
            raise JobError(field, f"is a setting of {', '.join(samplers)}; the sampler is {job.sampler}")
    if job.sampler == "heun" and job.num_inference_steps > MAX_HEUN_STEPS:
        raise JobError(
            "num_inference_steps", f"must be at most {MAX_HEUN_STEPS} with heun, got {job.num_inference_steps}"
        )


def _model(field: str, value: Any) -> str:
    model = check_text(field, value)
    if not model.strip() or "\n" in model:
        raise JobError(field, "must be a hub id (org/name) or a folder, got an empty name")
    return model


def _pair(low: int) -> Callable[[str, Any], tuple[int, int]]:
    whole = _whole(low, MAX_CONDITIONING)

    def check(field: str, value: Any) -> tuple[int, int]:
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise JobError(field, f"must be two whole numbers, got {_kind(value)}")
        return whole(field, value[0]), whole(field, value[1])

    return check


def _kind(value: Any) -> str:
    """The value for a message: short, and of one line, whatever it is."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, a list in a list in a list...
        text = f"a huge {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "prompt": _prompt,
    "prompt_2": check_text,
    "negative_prompt": check_text,
    "negative_prompt_2": check_text,
    "seed": _whole(0, MAX_SEED),
    "width": _side,
    "height": _side,
    "num_inference_steps": _whole(1, MAX_STEPS),
    "guidance_scale": _number(0, MAX_GUIDANCE),
    "sampler": _one_of(SAMPLERS),
    "model": _model,
    "original_size": _pair(1),
    "target_size": _pair(1),
    "crops_coords_top_left": _pair(0),
    "negative_original_size": _pair(1),
    "negative_target_size": _pair(1),
    "negative_crops_coords_top_left": _pair(0),
    "timestep_spacing": _one_of(TIMESTEP_SPACINGS),
    "sigma_schedule": _one_of(SIGMA_SCHEDULES),
    "timesteps": _list_of(_whole(0, MAX_STEPS - 1)),
    "sigmas": _list_of(_number(0, MAX_SIGMA)),
    "eta": _number(0, 1),
    "guidance_rescale": _number(0, 1),
    "clip_skip": _whole(0, MAX_CLIP_SKIP),
    "prompt_windows": _whole(1, MAX_PROMPT_WINDOWS),
    "prompt_weighting": _flag,
    "denoising_end": _between_0_and_1("less than"),
    "refiner": _model,
    "refiner_strength": _between_0_and_1("at most"),
    "aesthetic_score": _number(0, MAX_AESTHETIC_SCORE),
    "negative_aesthetic_score": _number(0, MAX_AESTHETIC_SCORE),
}

_OFF = {"eta": 0, "guidance_rescale": 0, "clip_skip": 0, "prompt_windows": 1, "prompt_weighting": False}
"""What says the same as `None`."""

_OPTIONAL = frozenset(field.name for field in fields(Job) if field.default is None)

FIELD_NAMES = tuple(_CHECKS)
