"""What a worker is told: flags of `promptmill worker`, or PROMPTMILL_* for `celery -A promptmill.worker.app worker`."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from promptmill.producer.broker import DEFAULT_URL
from promptmill.producer.errors import PromptmillError

ON_UNSAFE = ("black", "blur", "keep", "fail")
"""What can become of an image that a check flagged: see worker/post_processing.py, and docs/safety.md for users."""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How a worker claims, renders and stops. Each field is the environment variable PROMPTMILL_<FIELD>."""

    broker: str = DEFAULT_URL
    model: str | None = None
    """Loaded, and compiled for its own size, before the worker claims anything."""
    dtype: str | None = None
    """What the UNet and the text encoders compute in; by default bfloat16 on TPU and GPU, float32 on CPU."""
    per_device_batch: int = 1
    batches_in_flight: int = 3
    """One on the device, one waiting for it, one being encoded and uploaded."""
    models_kept: int = 1
    """Models whose weights stay on the devices at once."""
    safety_checker: str | None = None
    """Looks at each image: a hub id such as CompVis/stable-diffusion-safety-checker, or a folder. None: nobody."""
    image_check: str | None = None
    """Functions of the user's own that look too: `module:function`, several with commas between."""
    on_unsafe: str = "black"
    """What becomes of an image that is flagged: one of ON_UNSAFE."""
    watermark: bool = False
    """Whether images get SDXL's invisible watermark."""
    lease_s: float = 30.0
    """A dead worker's jobs are claimed by others after so long."""
    drain_s: float = 30.0
    """How long a worker that was told to stop finishes what it holds, before it gives the rest back."""
    parent_pid: int = 0
    """The process that this worker and its Redis serve; when it is gone, so are they. 0: none."""

    def __post_init__(self) -> None:
        for field in ("per_device_batch", "batches_in_flight", "models_kept"):
            if getattr(self, field) < 1:
                raise PromptmillError(f"PROMPTMILL_{field.upper()}: must be at least 1, got {getattr(self, field)}")
        if self.on_unsafe not in ON_UNSAFE:
            raise PromptmillError(f"PROMPTMILL_ON_UNSAFE: must be {' or '.join(ON_UNSAFE)}, got {self.on_unsafe!r}")

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> "WorkerSettings":
        """Raises PromptmillError for a value that cannot be read."""
        found: dict[str, Any] = {}
        for field, parse in _PARSERS.items():
            name = f"PROMPTMILL_{field.upper()}"
            if environ.get(name):
                try:
                    found[field] = parse(environ[name])
                except ValueError as error:
                    raise PromptmillError(f"{name}: must be {_KINDS[parse]}, got {environ[name]!r}") from error
        return cls(**found)


def _yes_or_no(text: str) -> bool:
    answers = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if text.lower() not in answers:
        raise ValueError(text)
    return answers[text.lower()]


_KINDS: dict[Callable[[str], Any], str] = {int: "a number", float: "a number", _yes_or_no: "true or false"}

_PARSERS: dict[str, Callable[[str], Any]] = {
    "broker": str,
    "model": str,
    "dtype": str,
    "per_device_batch": int,
    "batches_in_flight": int,
    "models_kept": int,
    "safety_checker": str,
    "image_check": str,
    "on_unsafe": str,
    "watermark": _yes_or_no,
    "lease_s": float,
    "drain_s": float,
    "parent_pid": int,
}
