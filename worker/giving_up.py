"""The thread that fails the jobs of shapes which nobody can render, beside rendering.

They are claimed like others, some at a time, under lock and lease: whoever dies or sleeps meanwhile, another goes on,
and each job is failed once. They need no device, so they take no slot from the batches.
"""

import logging
import threading

import redis

from promptmill.producer.backoff import backoff
from promptmill.producer.job import Shape
from promptmill.worker.host import Host
from promptmill.worker.render import FIRST_PAUSE_S, MAX_PAUSE_S

logger = logging.getLogger(__name__)

AT_ONCE = 100  # jobs claimed together
LOOK_S = 0.1  # between two looks whether claiming is allowed again


class GivingUp:
    """Its thread runs `run`, until the process ends; the puller calls the rest."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._changed = threading.Condition()
        self._reasons: dict[Shape, str] = {}

    def begin(self, shape: Shape, reason: str) -> None:
        """Fail all jobs of the shape that are there, for a reason that a user can read."""
        with self._changed:
            self._reasons[shape] = reason
            self._changed.notify_all()

    def __contains__(self, shape: Shape) -> bool:
        """Whether the shape's jobs are being failed."""
        with self._changed:
            return shape in self._reasons

    def run(self) -> None:
        while not self._host.stopping.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._reasons)
                shape, reason = next(iter(self._reasons.items()))
            try:
                self._fail_all(shape, reason)
            except Exception:
                logger.exception("failing the jobs of %s was not finished", shape.key)
            finally:
                with self._changed:
                    del self._reasons[shape]

    def _fail_all(self, shape: Shape, reason: str) -> None:
        logger.error("failing the jobs of %s: %s", shape.key, reason)
        host, pauses = self._host, backoff(first_s=FIRST_PAUSE_S, most_s=MAX_PAUSE_S)
        while not host.stopping.is_set():
            try:
                host.compiling.given_up(shape)  # for as long as it takes, and some more
                if not self._fail_some(shape, reason) and not host.alone.is_set():
                    return
                pauses = backoff(first_s=FIRST_PAUSE_S, most_s=MAX_PAUSE_S)
            except redis.RedisError as error:
                logger.warning("Redis does not answer: %s", error)
                host.stopping.wait(next(pauses))

    def _fail_some(self, shape: Shape, reason: str) -> int:
        """Fail up to AT_ONCE jobs; how many it were."""
        host = self._host
        while host.alone.is_set() and not host.stopping.wait(LOOK_S):
            pass
        with host.in_flight.beside() as slot:
            claims = host.claim(shape, AT_ONCE, slot, pass_over=())
            for claim in claims:
                with host.in_flight.leaving([claim]):
                    host.finisher.fail(claim, reason)
        return len(claims)
