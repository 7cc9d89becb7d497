"""Job, JobId, Shape: the contract that both sides keep.

A job is one image to render. It is frozen and valid from its constructor on, and known by its job id: a hash of
everything that decides its pixels. What its fields are is in fields.py.
"""

import difflib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NewType
from urllib.parse import quote, unquote

from promptmill.producer.errors import JobError
from promptmill.producer.families.samplers import SAMPLERS, TAKEN_BY
from promptmill.producer.fields import ALIASES, FIELD_NAMES, ROWS, JobFields
from promptmill.producer.values import shown

JobId = NewType("JobId", str)
"""32 hexadecimal digits: the first 128 bits of a SHA-256."""


def is_job_id(text: str) -> bool:
    return re.fullmatch("[0-9a-f]{32}", text) is not None


JOB_FORMAT = "promptmill-job-1"
"""Hashed in front of every job: raised when the same fields come to mean other pixels."""


_KINDS = ("guided", "stochastic", "interval", "cached")
"""What a job has, or has not, that a program is compiled for; so named in a shape and in its key."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What XLA compiles for, but for the batch: one compiled program per shape."""

    model: str
    width: int
    height: int
    guided: bool
    stochastic: bool = False  # whether the sampler draws noise at each step; else all samplers are one program
    prompt_windows: int = 1
    refiner: str | None = None
    interval: bool = False  # whether guidance is for part of the steps
    cached: bool = False  # whether the UNet's deep part is kept between evaluations

    @property
    def key(self) -> str:
        """The shape as one readable string, part of its stream's name in Redis."""
        kind = "+".join(name for name in _KINDS if getattr(self, name)) or "plain"
        models = ":".join(quote(name, safe="/@") for name in (self.model, self.refiner) if name is not None)
        return f"{self.width}x{self.height}:{kind}:{self.prompt_windows}:{models}"

    @classmethod
    def from_key(cls, key: str) -> "Shape":
        """The shape whose `key` this is."""
        size, kind, windows, *models = key.split(":")
        width, height = size.split("x")
        model, refiner = (*map(unquote, models), None)[:2]
        assert model is not None
        kinds = {name: name in kind.split("+") for name in _KINDS}
        return cls(model, int(width), int(height), prompt_windows=int(windows), refiner=refiner, **kinds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(JobFields):
    """One image to render.

    Its fields, with their defaults, are the rows of promptmill.producer.fields. `negative_prompt=None` means zeros
    where the model says so (SDXL does), `""` means the encoding of an empty text. `guidance_scale` at or under 1 turns
    guidance off.

    `timestep_spacing` and `sigma_schedule` stand in for the model's own, `timesteps` or `sigmas` for all of it.
    `refiner` names a second model, which takes over at `denoising_end` (a fraction of the noise schedule, as an
    ensemble of experts) or, where that is `None`, renders the finished latents anew with `refiner_strength`.
    A longer prompt than one window of 77 tokens is cut unless `prompt_windows` is more; `prompt_weighting` gives
    `(word:1.3)` its meaning.

    Raises JobError, which names the field, what was got and what was expected.
    """

    def __post_init__(self) -> None:
        for field, check, optional, off in _CHECKS:
            value = getattr(self, field)
            if value is None and optional:
                continue
            value = check(field, value)
            object.__setattr__(self, field, None if value == off else value)  # said or not said, it is one job
        _check_together(self)

    @property
    def guided(self) -> bool:
        """Whether the UNet runs for the negative prompt too."""
        return self.guidance_scale > 1.0

    @property
    def stochastic(self) -> bool:
        """Whether its sampler draws noise at each step."""
        return SAMPLERS[self.sampler].stochastic or self.eta is not None

    @property
    def interval(self) -> bool:
        """Whether guidance is for part of its steps."""
        return self.guidance_start is not None or self.guidance_end is not None

    @property
    def cached(self) -> bool:
        """Whether the UNet's deep part is kept between evaluations."""
        return self.cache_interval is not None

    @property
    def shape(self) -> Shape:
        """What has to be compiled for this job."""
        kinds = {name: getattr(self, name) for name in _KINDS}
        windows = self.prompt_windows or 1
        return Shape(self.model, self.width, self.height, prompt_windows=windows, refiner=self.refiner, **kinds)

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
    return name if len(name) <= 60 and name.isprintable() and name else shown(name)


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, [*FIELD_NAMES, *ALIASES], n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f" (known: {', '.join(FIELD_NAMES)})"
    return f"is not a field of a job{hint}"


def _check_together(job: Job) -> None:
    """What two fields must not say at once."""
    if job.timesteps is not None and job.sigmas is not None:
        raise JobError("sigmas", "cannot be given together with timesteps: either is the whole schedule")
    if job.refiner is None and job.refiner_strength is not None:
        raise JobError("refiner_strength", "needs a refiner")
    if job.refiner_strength is not None and job.denoising_end is not None:
        raise JobError("refiner_strength", "cannot be given together with denoising_end: that says where it begins")
    if job.interval:
        _check_interval(job)
    for field, samplers in TAKEN_BY.items():
        if getattr(job, field) is not None and job.sampler not in samplers:
            raise JobError(field, f"is a setting of {', '.join(samplers)}; the sampler is {job.sampler}")
    most = SAMPLERS[job.sampler].max_steps
    if job.num_inference_steps > most:
        raise JobError(
            "num_inference_steps", f"must be at most {most} with {job.sampler}, got {job.num_inference_steps}"
        )


def _check_interval(job: Job) -> None:
    if not job.guided:
        field = "guidance_end" if job.guidance_start is None else "guidance_start"
        raise JobError(field, f"needs a guidance_scale above 1, got {job.guidance_scale:g}")
    start, end = job.guidance_start or 0, 1 if job.guidance_end is None else job.guidance_end
    if start >= end:
        raise JobError("guidance_start", f"must be less than guidance_end, got {start:g} and {end:g}")


_CHECKS = [(one.name, ROWS[one.name].value.check, one.default is None, ROWS[one.name].off) for one in fields(JobFields)]
