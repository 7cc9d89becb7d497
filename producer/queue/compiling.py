"""Shapes that workers are loading, compiling or warming up, and those that killed whoever tried.

    promptmill:compiling:SHAPE   consumer -> when it was last seen at it (microseconds); an hour after the last sign of
                                 anybody it expires
    promptmill:unmade:SHAPE      since when no worker could make its program (seconds); expires when nobody says so any
                                 more

A worker enters itself before it begins, renews its mark as it renews leases, and takes it away however its attempt
ends, but by its death. So a mark that is not renewed is a death; and so is one of which there is a newer one of the
same name, since a name has one worker at a time. While Redis is away nobody can renew: for a lease after that a mark
says nothing, be it that Redis was started anew, or that this worker did not reach it (`was_away`). Once a worker has
the shape's program, all marks go: the shape is proven.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import redis

from promptmill.producer.job import Shape
from promptmill.producer.queue.keys import compiling_key, unmade_key
from promptmill.producer.queue.scripts import Script

MAX_DEATHS = 3
"""A shape that so many workers died of is given up: its jobs are failed."""

FOR_EVER_S = 1e9
FORGIVEN_S = 60  # after it was given up; jobs that are submitted then have another three tries
UNMADE_S = 600  # after this without a word from anybody, the time that jobs have waited for a program counts anew


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a worker is told that wants to make a shape's program."""

    deaths: int
    """Workers that died of it."""
    others: int
    """Workers that are at it now."""
    begun: bool

    @property
    def is_hopeless(self) -> bool:
        return self.deaths >= MAX_DEATHS


class Compiling:
    """The marks, as one consumer (`NAME/...`) sees them. Thread-safe."""

    def __init__(self, client: redis.Redis, consumer: str, *, lease_s: float = 30.0) -> None:
        self._redis: Any = client
        self._consumer = consumer
        self._lease_s, self._trusted_from = lease_s, 0.0  # time.monotonic()
        self._look, self._renew = Script(client, "compiling_look"), Script(client, "compiling_renew")

    def begin(self, shape: Shape) -> Attempt:
        """Enter this worker as one that makes the shape's program, unless that is hopeless, or dangerous and tried."""
        return self._ask(shape, begin=True)

    def deaths(self, shapes: Iterable[Shape]) -> dict[Shape, int]:
        """Of each shape, how many workers died of it."""
        return {shape: self._ask(shape, begin=False).deaths for shape in shapes}

    def renew(self, shape: Shape) -> None:
        """This worker is still at it."""
        self._renew(shape.key, self._consumer)

    def was_away(self) -> None:
        """Redis did not answer, or took no writes: others could not renew their marks either."""
        self._trusted_from = time.monotonic() + self._lease_s

    def succeeded(self, shape: Shape) -> None:
        """The shape is proven."""
        self._redis.delete(compiling_key(shape), unmade_key(shape))

    def ended(self, shape: Shape) -> None:
        """This worker's attempt ended without a program, and not by its death."""
        self._redis.hdel(compiling_key(shape), self._consumer)

    def refused(self, shape: Shape) -> float:
        """This worker cannot make the shape's program. For how long no worker could, in seconds."""
        seconds, microseconds = self._redis.time()
        now = seconds + microseconds / 1e6
        self._redis.set(unmade_key(shape), now, nx=True)
        self._redis.expire(unmade_key(shape), UNMADE_S)
        return float(now - float(self._redis.get(unmade_key(shape)) or now))

    def given_up(self, shape: Shape) -> None:
        """The jobs that are there were failed; in FORGIVEN_S seconds the shape is as good as new."""
        self._redis.expire(compiling_key(shape), FORGIVEN_S)

    def _ask(self, shape: Shape, *, begin: bool) -> Attempt:
        lease_s = self._lease_s if time.monotonic() >= self._trusted_from else FOR_EVER_S
        deaths, others, begun = self._look(shape.key, self._consumer, int(lease_s * 1000), int(begin), MAX_DEATHS)
        return Attempt(deaths, others, bool(begun))
