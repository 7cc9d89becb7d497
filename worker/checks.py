"""What looks at images before anybody else: the safety checker, and functions of a user's own.

    checks = load_checks(settings)
    started = checks.start(result.pixels)       right after the batch was put on the device; returns at once
    findings = checks.finish(started, pixels)   when the batch is here: for each image, a verdict of each check

What becomes of an image that is flagged is worker/post_processing.py's. With no checks both calls do nothing.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from jaxtyping import Array, UInt8

from promptmill.producer.errors import PromptmillError
from promptmill.producer.words import count
from promptmill.worker.settings import WorkerSettings

if TYPE_CHECKING:
    from promptmill.worker.safety.safety import Cosines, SafetyChecker


class CheckError(PromptmillError):
    """A check cannot be loaded, or did not answer; no image passes unchecked."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check says of one image. The details are JSON values, and go into the image's record."""

    flagged: bool
    details: Mapping[str, Any] = field(default_factory=dict)


ImageCheck = Callable[[UInt8[np.ndarray, "N H W 3"]], Sequence[Verdict]]
"""A user's check: images of one size in, a verdict for each out."""

Findings = Mapping[str, Verdict]
"""Of one image, the verdicts by the names of the checks."""


class Check(Protocol):
    """A check in two steps, so that the device's part of it waits for no host."""

    def start(self, pixels: UInt8[Array, "B H W 3"]) -> Any:
        """Queues what the device has to do, and does not wait. A call may be the last: a program's warm-up."""

    def finish(self, started: Any, pixels: UInt8[np.ndarray, "N H W 3"]) -> Sequence[Verdict]:
        """A verdict for each of the first N images."""


class Checks:
    """All checks of a worker, by name."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = checks

    def start(self, pixels: UInt8[Array, "B H W 3"]) -> dict[str, Any]:
        """Queues the device's part of each check behind the pixels. Waits for nothing."""
        return {name: check.start(pixels) for name, check in self._checks.items()}

    def finish(self, started: Mapping[str, Any], pixels: UInt8[np.ndarray, "N H W 3"]) -> list[Findings]:
        """Of each image, what each check says. Raises CheckError where one does not say it."""
        verdicts = {name: _asked(name, check, started[name], pixels) for name, check in self._checks.items()}
        return [{name: verdicts[name][index] for name in verdicts} for index in range(len(pixels))]


def load_checks(settings: WorkerSettings) -> Checks:
    """The checks that the settings name. Raises CheckError, and ModelError for a safety checker's files."""
    checks: dict[str, Check] = {}
    if settings.safety_checker:
        checks[settings.safety_checker] = load_safety_check(settings.safety_checker)
    for name in filter(None, (part.strip() for part in (settings.image_check or "").split(","))):
        checks[name] = FunctionCheck(load_function(name))
    return Checks(checks)


def load_safety_check(name: str) -> "SafetyCheck":
    """The safety checker of a folder or a hub id, on all of this host's devices. Raises ModelError."""
    from promptmill.worker.safety.safety import SafetyChecker, find_safety_checker

    return SafetyCheck(SafetyChecker.load(find_safety_checker(name)))


@dataclass(frozen=True)
class SafetyCheck:
    """Stable Diffusion's safety checker; its scores are of pixels that have not left the device."""

    checker: "SafetyChecker"

    def start(self, pixels: UInt8[Array, "B H W 3"]) -> "Cosines":
        return self.checker.start(pixels)

    def finish(self, started: "Cosines", pixels: UInt8[np.ndarray, "N H W 3"]) -> list[Verdict]:
        return [
            Verdict(scores.flagged, {"score": max(scores.concepts), "concepts": scores.bad_concepts})
            for scores in self.checker.finish(started, len(pixels))
        ]


@dataclass(frozen=True)
class FunctionCheck:
    """A user's function, called with the images of a batch in the thread that fetches them."""

    function: ImageCheck

    def start(self, pixels: UInt8[Array, "B H W 3"]) -> None:
        return None

    def finish(self, started: None, pixels: UInt8[np.ndarray, "N H W 3"]) -> Sequence[Verdict]:
        return self.function(pixels)


def load_function(name: str) -> ImageCheck:
    """The function of `package.module:function`. Raises CheckError."""
    module, _, function = name.partition(":")
    if not module or not function:
        raise CheckError(f"--image-check: must be module:function, got {name!r}")
    try:
        found: Any = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise CheckError(f"--image-check {name}: {error} (it has to be installed, or on PYTHONPATH)") from error
    if not callable(found):
        raise CheckError(f"--image-check {name}: is {type(found).__name__}, and not a function")
    check: ImageCheck = found
    return check


def _asked(name: str, check: Check, started: Any, pixels: UInt8[np.ndarray, "N H W 3"]) -> Sequence[Verdict]:
    try:
        verdicts = check.finish(started, pixels)
    except Exception as error:
        raise CheckError(f"the image check {name} failed: {type(error).__name__}: {error}") from error
    said = [verdict for verdict in verdicts if isinstance(verdict, Verdict)]
    if not len(said) == len(verdicts) == len(pixels):
        raise CheckError(f"the image check {name} gave {count(len(said), 'verdict')} for {count(len(pixels), 'image')}")
    return said
