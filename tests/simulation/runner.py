"""Plays seeds, one after the other, in this Python process, which is good for nothing else from then on."""

import contextlib
import gc
import logging
from types import TracebackType
from typing import Any

from tests.simulation.faults import Faults
from tests.simulation.install import install
from tests.simulation.server import VirtualRedis, virtual_redis
from tests.simulation.story import Outcome, play
from tests.simulation.world import World

COLLECT_EVERY = 10
"""Seeds. Looking for what nobody needs any more takes a while, however little it is."""

_networks: list[Any] = []
_world: list[World] = []


class Runner:
    """Holds the Redis of this process while it is entered."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._server: VirtualRedis
        self._played = 0

    def __enter__(self) -> "Runner":
        if not _networks:
            _networks.append(install(lambda: _world[0]))
        self._server = self._stack.enter_context(virtual_redis())
        gc.collect()
        gc.freeze()  # all that was imported: looking through it takes longer than a story
        gc.disable()  # a greenlet that is collected is killed, at a moment that no seed knows
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        gc.collect()
        gc.enable()
        self._stack.close()

    def play(self, seed: int, faults: Faults | None = None) -> Outcome:
        outcome = play(seed, self._server, self._enter, faults)
        _world.clear()
        self._played += 1
        if self._played % COLLECT_EVERY == 0:
            gc.collect()
        return outcome

    def _enter(self, world: World) -> None:
        _world[:] = [world]
        _networks[0].world = world


def play_share(seeds: range) -> list[tuple[int, str | None, dict[str, int]]]:
    """Play them all; of each the seed, what did not hold, and counts."""
    logging.disable(logging.CRITICAL)
    with Runner() as runner:
        return [(seed, *_told(runner.play(seed))) for seed in seeds]


def _told(outcome: Outcome) -> tuple[str | None, dict[str, int]]:
    return outcome.failure, {
        "again": outcome.rendered_again,
        "jobs": outcome.jobs,
        "checks": outcome.checks,
        "virtual_s": round(outcome.virtual_s),
        "steps": sum(outcome.requests.values()),
    }
