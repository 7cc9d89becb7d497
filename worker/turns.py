"""Which shape a worker renders next: the same one for a while, since a change may compile, but never for ever."""

import time
from collections.abc import Sequence

from producer.job import Shape

TURN_S = 30.0  # a shape keeps the device for so long while others wait
REFUSED_S = 30.0  # a model that could not be loaded is not tried again for so long


class Turns:
    """The shapes' turns on this worker. Used by one thread."""

    def __init__(self) -> None:
        self._shape: Shape | None = None
        self._turn_ends = 0.0
        self._refused_until: dict[str, float] = {}

    def next(self, able: Sequence[Shape]) -> Shape | None:
        """The shape in turn among those with work, or None where there is none that this worker can render."""
        now = time.monotonic()
        able = sorted((s for s in able if self._refused_until.get(s.model, 0.0) < now), key=lambda s: s.key)
        if not able:
            return None
        if self._shape not in able or now > self._turn_ends:
            later = [shape for shape in able if self._shape and shape.key > self._shape.key]
            self._shape = (later or able)[0]
            self._turn_ends = now + TURN_S
        return self._shape

    def begin(self) -> None:
        """The turn counts from here on: what it needs is loaded and compiled."""
        self._turn_ends = time.monotonic() + TURN_S

    def refuse(self, model: str) -> None:
        """Leaves a model's shapes to other workers for REFUSED_S."""
        self._refused_until[model] = time.monotonic() + REFUSED_S
