"""The jobs that are held here, as requests of Celery's: `celery inspect active` and its like tell of them, and Flower.

What those commands read is celery.worker.state, which Celery's own consumer fills by the three functions used here.
"""

import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

from celery import Celery
from celery.worker import state

from promptmill.producer.queue.queue import Claim
from promptmill.worker.events import TASK_NAME, arguments_of
from promptmill.worker.observers import Observer

logger = logging.getLogger(__name__)


class JobRequest:
    """A claim, by the names that Celery's commands ask a request for."""

    name = TASK_NAME
    acknowledged = True  # Celery has no message to give back: the queue has its own leases
    eta = None

    def __init__(self, claim: Claim, app: Celery, hostname: str) -> None:
        self.id = claim.job.id
        self.task = app.tasks[TASK_NAME]
        self.time_start: float | None = None
        self._claim = claim
        self._hostname = hostname

    def info(self, safe: bool = False) -> dict[str, Any]:
        """What `inspect active`, `reserved` and `query_task` show."""
        args, kwargs = arguments_of(self._claim)
        return {
            "id": self.id,
            "name": self.name,
            "type": self.name,
            "args": args,
            "kwargs": kwargs,
            "hostname": self._hostname,
            "time_start": self.time_start,
            "acknowledged": self.acknowledged,
            "delivery_info": {"redelivered": self._claim.deliveries > 1, "routing_key": self._claim.shape.key},
            "worker_pid": None,
        }

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """Nothing is torn out of a batch: the job is revoked, and its image is thrown away."""
        logger.info("job %s is with the device: it is dropped when its batch is back", self.id)

    cancel = terminate


class CeleryRequests(Observer):
    """Keeps Celery's own list of requests. Thread-safe."""

    def __init__(self, app: Celery, hostname: str) -> None:
        self._app = app
        self._hostname = hostname
        self._lock = threading.Lock()
        self._requests: dict[tuple[str, int], JobRequest] = {}  # Celery's own sets hold them weakly

    def received(self, claim: Claim) -> None:
        request = JobRequest(claim, self._app, self._hostname)
        with self._lock:
            self._requests[claim.run, claim.index] = request
        state.task_reserved(request)

    def started(self, claim: Claim) -> None:
        with self._lock:
            request = self._requests.get((claim.run, claim.index))
        if request:
            request.time_start = time.time()
            state.task_accepted(request)

    def succeeded(self, claim: Claim, url: str, runtime_s: float) -> None:
        self._end(claim)

    def failed(self, claim: Claim, reason: str) -> None:
        self._end(claim)

    def revoked(self, claim: Claim) -> None:
        self._end(claim)

    def retried(self, claim: Claim, reason: str) -> None:
        self._end(claim)

    def lost(self, claims: Sequence[Claim]) -> None:
        for claim in claims:
            self._end(claim)

    def _end(self, claim: Claim) -> None:
        with self._lock:
            request = self._requests.pop((claim.run, claim.index), None)
        if request:
            state.task_ready(request)
