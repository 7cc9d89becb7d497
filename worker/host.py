"""One worker process: what its threads share, and its end.

                        claims                     batches                     images
    Redis ──> puller ───────────> the device ───────────────> fetcher ──────────────> Celery's pool ──> output, Redis
              pull.py             render.start                fetch.py                render.Finisher
                  │                                              │                        │
                  └── hold ──> InFlight (slots and claims) <─────┴──────── leaving ───────┘
                                   │ held
                                keeper ──> leases, report: keep.py

    puller    picks a shape with work and a program, claims a batch, starts it on the device
    compiler  makes the next shape's program meanwhile, as the puller says: compiler.py
    giving up fails the jobs of shapes that nobody can render: giving_up.py
    fetcher   waits for the device, batch after batch, and hands each job to the pool to be finished
    keeper    renews the leases of all that is held, and reports that the worker is there

The puller needs one of `batches_in_flight` slots before it claims, so a worker holds no more than it renders soon.
All share the Host below: `claiming` is locked while a claim is on its way from Redis into InFlight, `stopping` says
that nothing more is claimed, `give_up` that nobody waits for an output or a Redis any more.
"""

import contextlib
import logging
import os
import queue
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import redis

from promptmill.producer.broker import CELERY_QUEUE, client_of
from promptmill.producer.job import Shape
from promptmill.producer.outputs.output import OutputError
from promptmill.producer.queue.compiling import Compiling
from promptmill.producer.queue.queue import Claim, JobQueue
from promptmill.producer.queue.workers import Workers
from promptmill.producer.words import count
from promptmill.worker.devices import is_out_of_memory
from promptmill.worker.in_flight import InFlight, Slot
from promptmill.worker.observers import Observer
from promptmill.worker.output_trouble import OutputTrouble
from promptmill.worker.program import AnyProgram
from promptmill.worker.programs import Programs
from promptmill.worker.render import Batch, Finisher
from promptmill.worker.restart import restart
from promptmill.worker.revoked import Revoked
from promptmill.worker.self_report import SelfReport
from promptmill.worker.settings import WorkerSettings

logger = logging.getLogger(__name__)


class Host:
    """What the threads share. Of the Celery worker it needs the name and the pool."""

    def __init__(self, settings: WorkerSettings, worker: Any, observer: Observer) -> None:
        self.settings = settings
        self.pool = worker.pool
        self.client = client_of(settings.broker)
        consumer = f"{worker.hostname}/{secrets.token_hex(4)}"  # a restarted worker is another consumer
        self.queue = JobQueue(self.client, consumer, lease_s=settings.lease_s, has_image=self._has_image)
        # The keeper's own: a request of its that hangs is over, and asked again, before a lease runs out.
        self.keeping_client = client_of(settings.broker, timeout_s=settings.lease_s / 3)
        self.leases = JobQueue(self.keeping_client, consumer, lease_s=settings.lease_s)
        self.marks = Compiling(self.keeping_client, consumer, lease_s=settings.lease_s)
        self.compiling = Compiling(self.client, consumer, lease_s=settings.lease_s)
        self.revoked = Revoked(self.keeping_client)
        # `celery control cancel_consumer promptmill`: who takes no tasks takes no jobs either.
        self.is_paused: Callable[[], bool] = lambda: CELERY_QUEUE not in worker.app.amqp.queues.consume_from
        self.making: Shape | None = None
        """What the compiler is at; the keeper renews its mark."""
        self.observer = observer
        self.in_flight = InFlight(settings.batches_in_flight)
        self.report = SelfReport(worker.hostname, is_busy=lambda: bool(self.in_flight.held()))
        self.on_device: queue.SimpleQueue[Batch] = queue.SimpleQueue()
        self.claiming = threading.Lock()
        self.stopping = threading.Event()  # claim nothing more
        self.alone = threading.Event()
        """Claim nothing now: a program is made that killed workers before. Set while `claiming` is locked."""
        self.give_up = threading.Event()  # wait for no output and no Redis any more
        self.programs: Programs  # the puller makes them, when it has looked at the devices
        self.fetching: tuple[Batch, float] | None = None
        """The batch that the fetcher waits for, and since when (time.monotonic(), seconds)."""
        self.fatal: str | None = None
        """Why this worker cannot work at all."""
        self.outputs = OutputTrouble(self.report)
        self.finisher = Finisher(
            self.queue,
            observer,
            self.outputs,
            is_revoked=self.revoked.__contains__,
            give_up=self.give_up,
            settings=settings,
            worker=worker.hostname,
        )

    def _has_image(self, claim: Claim) -> bool:
        """Whether the job's image is in its output. Where that does not answer, it is not."""
        try:
            return self.finisher.has_image(claim)
        except OutputError as error:
            logger.warning("nobody can say whether job %s has its image: %s", claim.job.id, error)
            return False

    def claim(self, shape: Shape, count: int, slot: Slot, *, pass_over: Iterable[str]) -> list[Claim]:
        """Claims for a slot, held from now on, those left out that were revoked. Raises redis.RedisError."""
        with self.claiming:
            started = time.monotonic()
            closed = self.stopping.is_set() or self.alone.is_set()
            claims = [] if closed else self.queue.claim(shape, count, pass_over=pass_over)
            self.in_flight.hold(slot, claims)
        if claims:
            self.observer.spent("claim", time.monotonic() - started, len(claims))
        for claim in claims:
            self.observer.received(claim)
        revoked = [claim for claim in claims if claim in self.revoked]
        for claim in revoked:
            with self.in_flight.leaving([claim]):
                self.finisher.revoke(claim)
        return [claim for claim in claims if claim not in revoked]

    def lose(self, program: AnyProgram, claims: Sequence[Claim], error: Exception) -> None:
        """A whole batch failed, and nobody knows through which job: each gets another try.

        For a batch that was too large for the device that is no try: it goes on in smaller ones.
        """
        shape, reason = claims[0].shape, f"{type(error).__name__}: {error}"
        with self.in_flight.leaving(claims):
            left = self.in_flight.remaining(claims)
            if is_out_of_memory(error) and self.programs.halve(shape, program):
                images = self.programs.per_device(shape)
                self.report.trouble(shape.key, f"out of memory: it goes on with {count(images, 'image')} per device")
                self.finisher.release(left, f"given back, for smaller batches: {reason}")
            else:
                logger.error("a batch of %d jobs failed", len(claims), exc_info=error)
                self.finisher.retry(left, reason)

    def start_anew(self, claims: Sequence[Claim], why: str) -> None:
        """Give up these claims, which count as tried, give back all others, and start this process anew."""
        logger.critical("%s: this worker restarts itself", why)
        self.stopping.set()
        self.give_up.set()
        self.finisher.retry(claims, why)
        self.finisher.release([claim for claim in self.in_flight.held() if claim not in claims])
        self.observer.close()
        with contextlib.suppress(redis.RedisError):
            self.queue.leave()
        restart()

    def end(self, fatal: str | None = None) -> None:
        """Has Celery stop this worker, which ends in `stop`. With a reason, the process ends with exit code 2."""
        self.fatal = fatal
        self.stopping.set()
        os.kill(os.getpid(), signal.SIGTERM)

    def stop(self, drain_s: float) -> None:
        """Claim no more, finish what is held within `drain_s` seconds, and give back what is not finished."""
        if self.give_up.is_set():
            return
        self.report.phase("draining")
        with self.claiming:  # a claim that is under way is held before we look what is held
            self.stopping.set()
        if not self.in_flight.wait_until_empty(drain_s):
            logger.warning(
                "giving back %d jobs that are not finished after %.0f s", len(self.in_flight.held()), drain_s
            )
        self.give_up.set()
        self.finisher.release(self.in_flight.held())
        self.observer.close()
        try:
            self.queue.leave()
            Workers(self.client).leave(self.report.name)
        except redis.RedisError as error:
            logger.warning("could not sign off: %s", error)

    def is_orphaned(self) -> bool:
        """Whether the process that started this worker is gone."""
        return self.settings.parent_pid not in (0, os.getppid())
