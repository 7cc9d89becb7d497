"""What the worker says of itself: written by all its threads, sent by the keeper. Each call is one step."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from promptmill.producer.queue.workers import WorkerReport

RATE_WINDOW_S = 60.0


class SelfReport:
    """The worker's standing. Thread-safe: no thread reads it, changes it and writes it back."""

    def __init__(self, name: str, is_busy: Callable[[], bool]) -> None:
        self.name = name
        self._is_busy = is_busy
        self._lock = threading.Lock()
        self._fields: dict[str, Any] = {}
        self._phase = "starting"
        self._paused = False
        self._problems: dict[str, str] = {}
        self._compiling: str | None = None
        self._compiling_since = 0.0
        self._shape = ""
        self._rate = Rate()

    def devices(self, platform: str, count: int) -> None:
        with self._lock:
            self._fields = {"platform": platform, "devices": count}

    def phase(self, phase: str) -> None:
        """`starting`, `ready` or `draining`; what it does when it is ready shows by itself."""
        with self._lock:
            self._phase = phase

    def paused(self, paused: bool) -> None:
        """Whether it claims nothing as somebody asked for."""
        with self._lock:
            self._paused = paused

    def compiling(self, shape: str | None) -> None:
        """The key of the shape that is loaded or compiled, or None when that is over."""
        with self._lock:
            self._compiling, self._compiling_since = shape, time.monotonic()

    def serving(self, shape: str) -> None:
        with self._lock:
            self._shape = shape

    def trouble(self, what: str, why: str) -> None:
        """Something does not work here, a model or an output: `status` says so until it is cured."""
        with self._lock:
            self._problems[what] = why

    def cured(self, what: str) -> None:
        with self._lock:
            self._problems.pop(what, None)

    def landed(self) -> None:
        """One more image is safe."""
        with self._lock:
            self._rate.count()

    def now(self) -> WorkerReport:
        """The report as it is sent."""
        busy = self._is_busy()
        with self._lock:
            return WorkerReport(
                self.name,
                self._state(busy),
                shape=self._shape if busy or not self._compiling else self._compiling,
                images=self._rate.images,
                images_per_s=self._rate.images_per_s(),
                problems=dict(self._problems),
                compiling=self._compiling or "",
                compiling_s=round(time.monotonic() - self._compiling_since, 1) if self._compiling else 0.0,
                **self._fields,
            )

    def _state(self, busy: bool) -> str:
        if self._phase != "ready":
            return "compiling" if self._compiling and self._phase == "starting" else self._phase
        idle = "paused" if self._paused else "ready"
        return "rendering" if busy else "compiling" if self._compiling else idle


class Rate:
    """Images so far, and images a second over the last minute."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=100_000)
        self.images = 0

    def count(self) -> None:
        self.images += 1
        self._times.append(time.monotonic())

    def images_per_s(self) -> float:
        now = time.monotonic()
        while self._times and self._times[0] < now - RATE_WINDOW_S:
            self._times.popleft()
        return round(len(self._times) / (now - self._times[0]), 3) if len(self._times) > 1 else 0.0
