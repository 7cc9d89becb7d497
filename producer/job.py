"""Job, JobId, Shape: the contract that both sides keep.

A job is one image to render. It is frozen and valid from its constructor on, and known by its job id: a hash of
everything that decides its pixels. Fields are named as in the call of diffusers' StableDiffusionXLPipeline.
"""

import difflib
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NewType

from producer.errors import JobError

JobId = NewType("JobId", str)
"""32 hexadecimal digits: the first 128 bits of a SHA-256."""

JOB_FORMAT = "promptmill-job-1"
"""Hashed in front of every job: raised when the same fields come to mean other pixels."""

SAMPLERS = ("euler",)
"""What a job's `sampler` may be; worker.sdxl.samplers holds the arithmetic (a test compares the two)."""

SIZE_MULTIPLE = 8  # pixels a latent, in every SDXL VAE
MAX_SIDE = 4096  # pixels; beyond it SDXL draws nothing of use and a mistyped size would fill the device
MAX_STEPS = 1000  # the number of training timesteps
MAX_GUIDANCE = 100.0
MAX_SEED = 2**64 - 1  # what torch.Generator.manual_seed takes
MAX_PROMPT_CHARS = 10_000
MAX_CONDITIONING = 65_536  # pixels, for the size and crop conditioning

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
    sampler: str
    guided: bool

    @property
    def key(self) -> str:
        """The shape as one readable string, part of its stream's name in Redis."""
        guided = "guided" if self.guided else "unguided"
        return f"{self.sampler}:{self.width}x{self.height}:{guided}:{self.model}"

    @classmethod
    def from_key(cls, key: str) -> "Shape":
        """The shape whose `key` this is."""
        sampler, size, guided, model = key.split(":", 3)
        width, height = size.split("x")
        return cls(model, int(width), int(height), sampler, guided == "guided")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One image to render.

    `width` and `height` are pixels, multiples of 8. The three pairs of conditioning are `(height, width)` or
    `(top, left)` in pixels, as in diffusers; `None` means what it means there: the image's own size, and no crop.
    `negative_prompt=None` means zeros where the model says so (SDXL does), `""` means the encoding of an empty text.
    `guidance_scale` at or under 1 turns guidance off.

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

    def __post_init__(self) -> None:
        for field, check in _CHECKS.items():
            object.__setattr__(self, field, check(field, getattr(self, field)))

    @property
    def guided(self) -> bool:
        """Whether the UNet runs for the negative prompt too."""
        return self.guidance_scale > 1.0

    @property
    def shape(self) -> Shape:
        """What has to be compiled for this job."""
        return Shape(self.model, self.width, self.height, self.sampler, self.guided)

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
    bad = _UNFIT.search(value)
    if bad:
        what = "half a surrogate pair" if bad[0] >= "\ud800" else "a control character"
        raise JobError(field, f"has {what} (U+{ord(bad[0]):04X}) at character {bad.start() + 1}")
    return value


def _prompt(field: str, value: Any) -> str:
    text = check_text(field, value)
    if not text.strip():
        raise JobError(field, "is empty")
    return text


def _optional_text(field: str, value: Any) -> str | None:
    return None if value is None else check_text(field, value)


def _whole(low: int, high: int) -> Callable[[str, Any], int]:
    def check(field: str, value: Any) -> int:
        if isinstance(value, float) and value.is_integer():
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


def _guidance(field: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise JobError(field, f"must be a number, got {_kind(value)}")
    if not 0 <= value <= MAX_GUIDANCE:  # a NaN is neither
        raise JobError(field, f"must be from 0 to {MAX_GUIDANCE:g}, got {_kind(value)}")
    return float(value) + 0.0  # -0.0 and 0.0 are one job


def _sampler(field: str, value: Any) -> str:
    if value not in SAMPLERS:
        raise JobError(field, f"must be one of {', '.join(SAMPLERS)}; got {_kind(value)}")
    return str(value)


def _model(field: str, value: Any) -> str:
    model = check_text(field, value)
    if not model.strip() or "\n" in model:
        raise JobError(field, "must be a hub id (org/name) or a folder, got an empty name")
    return model


def _pair(low: int) -> Callable[[str, Any], tuple[int, int] | None]:
    whole = _whole(low, MAX_CONDITIONING)

    def check(field: str, value: Any) -> tuple[int, int] | None:
        if value is None:
            return None
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
    "prompt_2": _optional_text,
    "negative_prompt": _optional_text,
    "negative_prompt_2": _optional_text,
    "seed": _whole(0, MAX_SEED),
    "width": _side,
    "height": _side,
    "num_inference_steps": _whole(1, MAX_STEPS),
    "guidance_scale": _guidance,
    "sampler": _sampler,
    "model": _model,
    "original_size": _pair(1),
    "target_size": _pair(1),
    "crops_coords_top_left": _pair(0),
    "negative_original_size": _pair(1),
    "negative_target_size": _pair(1),
    "negative_crops_coords_top_left": _pair(0),
}

FIELD_NAMES = tuple(_CHECKS)
