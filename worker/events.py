"""Each job's life as Celery events under its job id, so that Flower and `celery events` show every prompt.

Events are for watching: where the broker does not take one, it is dropped and the work goes on.
"""

import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from promptmill.producer.backoff import backoff
from promptmill.producer.queue.queue import Claim
from promptmill.worker.observers import Observer

logger = logging.getLogger(__name__)

TASK_NAME = "promptmill.render"
# Pauses after an event was refused: a broker that is down is not asked for each job.
FIRST_PAUSE_S = 5.0
MAX_PAUSE_S = 60.0


def arguments_of(claim: Claim) -> tuple[tuple[str], dict[str, Any]]:
    """What stands for a task's arguments where jobs are watched."""
    job = claim.job
    return (job.prompt,), {"run": claim.run, "index": claim.index, "seed": job.seed, "shape": claim.shape.key}


def _pauses() -> Iterator[float]:
    return backoff(first_s=FIRST_PAUSE_S, most_s=MAX_PAUSE_S)


class JobEvents(Observer):
    """Sends events over a connection of its own, so that it outlives the consumer at shutdown. Thread-safe."""

    def __init__(self, app: Celery, hostname: str) -> None:
        self._app = app
        self._hostname = hostname
        self._lock = threading.Lock()
        self._dispatcher: Any = None
        self._silent_until = 0.0
        self._pauses = _pauses()

    def received(self, claim: Claim) -> None:
        args, kwargs = arguments_of(claim)
        self._send(
            "task-received",
            claim,
            name=TASK_NAME,
            args=repr(args),
            kwargs=repr(kwargs),
            retries=claim.deliveries - 1,
            eta=None,
        )

    def started(self, claim: Claim) -> None:
        self._send("task-started", claim)

    def succeeded(self, claim: Claim, url: str, runtime_s: float) -> None:
        self._send("task-succeeded", claim, result=repr(url), runtime=runtime_s)

    def failed(self, claim: Claim, reason: str) -> None:
        self._send("task-failed", claim, exception=reason, traceback="")

    def retried(self, claim: Claim, reason: str) -> None:
        self._send("task-retried", claim, exception=reason, traceback="")

    def revoked(self, claim: Claim) -> None:
        self._send("task-revoked", claim, terminated=False, signum=None, expired=False)

    def close(self) -> None:
        with self._lock:
            self._drop()

    def _send(self, kind: str, claim: Claim, **fields: Any) -> None:
        with self._lock:
            if time.monotonic() < self._silent_until:
                return
            try:
                if self._dispatcher is None:
                    connection = self._app.connection_for_write()
                    self._dispatcher = self._app.events.Dispatcher(
                        connection, hostname=self._hostname, buffer_while_offline=False
                    )
                self._dispatcher.send(kind, uuid=claim.job.id, **fields)
                self._pauses = _pauses()
            except (OperationalError, OSError, redis.RedisError) as error:
                pause_s = next(self._pauses)
                logger.warning("events are not sent for %.1f s: %s", pause_s, error)
                self._silent_until = time.monotonic() + pause_s
                self._drop()

    def _drop(self) -> None:
        if self._dispatcher is not None:
            self._dispatcher.close()
            self._dispatcher.connection.release()
            self._dispatcher = None
