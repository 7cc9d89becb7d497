"""Which shape a worker renders next: the most urgent, then the one at hand, as a change may compile. Nobody waits long.

A worker stays with its shape while that has work of the highest priority that anybody can claim, and while no other
shape of that priority waits for longer than TURN_S. "Waits" means on any worker: what another one renders is served.
"""

import time
from collections.abc import Callable, Sequence

from promptmill.producer.job import Shape
from promptmill.producer.queue.queue import Ready

TURN_S = 30.0  # a shape keeps the device for so long while others wait
REFUSED_S = 30.0  # a model that could not be loaded is not tried again for so long


class Turns:
    """The shapes' turns on this worker. Used by one thread."""

    def __init__(self) -> None:
        self._shape: Shape | None = None
        self._turn_ends = 0.0
        self._refused_until: dict[str, float] = {}

    def next(self, ready: Sequence[Ready], trouble: Callable[[Shape], int] = lambda shape: 0) -> Shape | None:
        """The shape in turn among those with work, or None where there is none that this worker can render.

        `trouble` says how much a shape costs before its first batch: 0 where its program is at hand.
        """
        now = time.monotonic()
        able = [one for one in ready if self._refused_until.get(one.shape.model, 0.0) < now]
        if not able:
            return None
        top = max(one.priority for one in able)
        first = [one for one in able if one.priority == top]
        waiting = [one for one in first if one.shape != self._shape and one.waited_s > TURN_S]
        at_hand = any(one.shape == self._shape for one in first)
        if waiting and (now > self._turn_ends or not at_hand):
            # Of two that wait, the one whose run nobody renders: a run of many shapes has no more turns than others.
            self._take(max(waiting, key=lambda one: (one.run_waited_s, one.waited_s)).shape, now)
        elif not at_hand:
            self._take(min(first, key=lambda one: (trouble(one.shape), -one.waited_s)).shape, now)
        return self._shape

    def begin(self) -> None:
        """The turn counts from here on: what it needs is loaded and compiled."""
        self._turn_ends = time.monotonic() + TURN_S

    def refuse(self, model: str) -> None:
        """Leaves a model's shapes to other workers for REFUSED_S."""
        self._refused_until[model] = time.monotonic() + REFUSED_S

    def _take(self, shape: Shape, now: float) -> None:
        self._shape, self._turn_ends = shape, now + TURN_S
