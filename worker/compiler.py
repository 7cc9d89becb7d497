"""The compiler's thread: loads, compiles and warms up one shape at a time, while others render.

A shape that killed workers before is tried with nothing in flight that it could take along, and after three deaths it
is given up (producer/queue/compiling.py counts them).
"""

import logging
import queue
import threading
import time
from collections.abc import Callable

import redis

from promptmill.producer.backoff import backoff
from promptmill.producer.job import Shape
from promptmill.producer.words import count
from promptmill.worker.errors import RequestError
from promptmill.worker.host import Host
from promptmill.worker.render import FIRST_PAUSE_S, MAX_PAUSE_S

logger = logging.getLogger(__name__)


class Compiler:
    """Its thread runs `run`; the puller calls the rest."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._wanted: queue.SimpleQueue[tuple[Shape, bool]] = queue.SimpleQueue()
        self._failures: queue.SimpleQueue[tuple[Shape, Exception]] = queue.SimpleQueue()
        self._busy = threading.Event()

    @property
    def is_free(self) -> bool:
        return not self._busy.is_set()

    def begin(self, shape: Shape) -> None:
        """Have the shape's program made. Call it when the compiler is free. Raises redis.RedisError."""
        attempt = self._host.compiling.begin(shape)
        if attempt.is_hopeless:
            died = f"{count(attempt.deaths, 'worker')} died while they loaded or compiled {shape.key}"
            reason = f"given up: {died} (out of memory?)"
            self._failures.put((shape, RequestError(reason)))
            self._host.compiling.given_up(shape)
        elif attempt.begun:
            self._host.queue.promise(shape)
            self._busy.set()
            if attempt.deaths:
                logger.warning("%d workers died of %s: it is tried with nothing else in flight", attempt.deaths, shape)
                with self._host.claiming:
                    self._host.alone.set()
            self._wanted.put((shape, attempt.deaths > 0))

    def failures(self) -> list[tuple[Shape, Exception]]:
        """The shapes that could not be made since the last call, each with the reason; RequestError: by no worker."""
        found = []
        while not self._failures.empty():
            found.append(self._failures.get())
        return found

    def run(self) -> None:
        while True:
            shape, alone = self._wanted.get()
            while alone and not self._host.in_flight.wait_until_empty(1.0):
                pass
            try:
                self.make(shape)
            except Exception as error:  # noqa: BLE001 - the puller decides what becomes of the jobs
                self._failures.put((shape, error))
            finally:
                self._host.alone.clear()
                self._busy.clear()

    def make(self, shape: Shape) -> None:
        """Make the shape's program in this thread. Raises ModelError, and what XLA raises."""
        host = self._host
        host.making = shape
        host.report.compiling(shape.key)
        started = time.monotonic()
        try:
            host.programs.make(shape)
        except BaseException:
            self._tell(host.compiling.ended, shape)
            raise
        else:
            host.observer.compiled(shape, time.monotonic() - started)
            self._tell(host.compiling.succeeded, shape)
        finally:
            host.making = None
            host.report.compiling(None)

    def _tell(self, tell: Callable[[Shape], None], shape: Shape) -> None:
        """However long Redis is away: a mark that stays and is renewed no more looks like a death."""
        for pause_s in backoff(first_s=FIRST_PAUSE_S, most_s=MAX_PAUSE_S):
            try:
                tell(shape)
            except redis.RedisError as error:
                logger.warning("could not tell Redis how compiling %s ended: %s", shape.key, error)
                if self._host.give_up.wait(pause_s):
                    return
            else:
                return
