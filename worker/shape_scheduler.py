"""Which shape a worker renders next, and which it compiles meanwhile. The most urgent first; nobody waits long.

A worker renders what it has programs for. It stays with a shape while that has work of the highest priority of those,
and while no other shape of that priority waits for longer than TURN_S. "Waits" means on any worker: what another one
renders is served. It makes another program where it has none for the most urgent work, or where a shape waits.
While it has one shape to go on with, it makes the program of the next one ahead, so that it never stands still.
"""

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from promptmill.producer.job import Shape
from promptmill.producer.queue.queue import Ready
from promptmill.worker.programs import Trouble

TURN_S = 30.0  # a shape keeps the device for so long while others wait
AHEAD_S = 5.0  # nobody else renders a shape that has waited for so long: its program is made ahead
REFUSED_S = 30.0  # a model that could not be loaded is not tried again for half to all of it: not by all at once


class Turns:
    """The shapes' turns on this worker. Used by one thread."""

    def __init__(self) -> None:
        self._shape: Shape | None = None
        self._turn_ends = 0.0
        self._refused_until: dict[str | Shape, float] = {}

    def next(self, at_hand: Sequence[Ready]) -> Shape | None:
        """The shape in turn among those with work and a program here, or None where there is none."""
        now = time.monotonic()
        first = _most_urgent(at_hand)
        if not first:
            return None
        waiting = [one for one in first if one.shape != self._shape and one.waited_s > TURN_S]
        goes_on = any(one.shape == self._shape for one in first)
        if waiting and (now > self._turn_ends or not goes_on):
            # Of two that wait, the one whose run nobody renders: a run of many shapes has no more turns than others.
            self._take(max(waiting, key=lambda one: (one.run_waited_s, one.waited_s)).shape, now)
        elif not goes_on:
            self._take(max(first, key=lambda one: one.waited_s).shape, now)
        return self._shape

    def to_make(
        self,
        ready: Sequence[Ready],
        trouble: Callable[[Shape], Trouble],
        deaths: Callable[[Iterable[Shape]], Mapping[Shape, int]],
    ) -> Shape | None:
        """The shape whose program is to be made now, beside rendering, or None where what is at hand is enough.

        `trouble` says what a shape costs before its first batch, `deaths` how many workers died of it. Shapes that
        killed nobody come first, then those with less trouble, then those that waited longest.
        """
        now = time.monotonic()
        first = _most_urgent([one for one in ready if not self._is_refused(one.shape, now)])
        costs = {one.shape: trouble(one.shape) for one in first}
        missing = [one for one in first if costs[one.shape] > Trouble.NONE]
        if len(missing) < len(first):  # there is work for what is at hand, and a shape that waits is served elsewhere?
            over = now > self._turn_ends
            waits = [one for one in missing if one.waited_s > TURN_S and (over or costs[one.shape] < Trouble.EVICT)]
            ahead = [one for one in missing if _is_cheap(one, costs)] if len(missing) == len(first) - 1 else []
            missing = waits or ahead
        if not missing:
            return None
        died = deaths(one.shape for one in missing)
        if len(missing) < len(first):
            return min(missing, key=lambda one: (died[one.shape], -one.run_waited_s, -one.waited_s)).shape
        return min(missing, key=lambda one: (died[one.shape], costs[one.shape], -one.waited_s)).shape

    def refuse(self, what: str | Shape) -> None:
        """Leave a model's shapes, or one shape, to other workers for up to REFUSED_S."""
        self._refused_until[what] = time.monotonic() + random.uniform(REFUSED_S / 2, REFUSED_S)

    def _is_refused(self, shape: Shape, now: float) -> bool:
        return any(self._refused_until.get(what, 0.0) >= now for what in (shape, shape.model))

    def _take(self, shape: Shape, now: float) -> None:
        self._shape, self._turn_ends = shape, now + TURN_S


def _is_cheap(one: Ready, costs: Mapping[Shape, Trouble]) -> bool:
    """Whether a shape that nobody renders can be made ahead with the models that are loaded."""
    return one.waited_s > AHEAD_S and costs[one.shape] == Trouble.COMPILE


def _most_urgent(ready: Sequence[Ready]) -> list[Ready]:
    top = max((one.priority for one in ready), default=0)
    return [one for one in ready if one.priority == top]
