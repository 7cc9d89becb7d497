"""What a worker is told: flags of `promptmill worker`, or PROMPTMILL_* for `celery -A worker.app worker`."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from producer.broker import DEFAULT_URL
from producer.errors import PromptmillError


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

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> "WorkerSettings":
        """Raises PromptmillError for a number that is none."""
        found: dict[str, Any] = {}
        for field, parse in _PARSERS.items():
            name = f"PROMPTMILL_{field.upper()}"
            if environ.get(name):
                try:
                    found[field] = parse(environ[name])
                except ValueError as error:
                    raise PromptmillError(f"{name}: must be a number, got {environ[name]!r}") from error
        return cls(**found)


_PARSERS: dict[str, Callable[[str], Any]] = {
    "broker": str,
    "model": str,
    "dtype": str,
    "per_device_batch": int,
    "batches_in_flight": int,
    "models_kept": int,
    "lease_s": float,
    "drain_s": float,
    "parent_pid": int,
}
