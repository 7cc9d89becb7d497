"""How a worker pulls: device-count-sized batches, several in flight, leases renewed.

Three threads beside those of the Celery pool:

    puller    finds a shape with work, has its program compiled, claims a batch, starts it on the device
    fetcher   waits for the device, batch after batch, and hands each job to the pool to be finished
    keeper    renews the leases of all that is held, and reports that the worker is there

The puller takes one of `batches_in_flight` slots before it claims, so a worker holds no more than it renders soon.
On a stop it claims nothing more, finishes what it holds within `drain_s`, and gives back the rest.
"""

import dataclasses
import logging
import os
import queue
import secrets
import signal
import threading
import time
from collections.abc import Sequence
from typing import Any

import jax
import redis
from celery.worker import state as celery_state

from promptmill.producer.broker import client_of
from promptmill.producer.job import Shape
from promptmill.producer.queue.queue import Claim, JobQueue
from promptmill.producer.queue.workers import REPORT_EVERY_S, WorkerReport, Workers
from promptmill.worker.checks import Checks, load_checks
from promptmill.worker.errors import RequestError
from promptmill.worker.events import JobEvents
from promptmill.worker.in_flight import InFlight, Latch, Rate, Slots
from promptmill.worker.programs import Programs
from promptmill.worker.render import Batch, Finisher, Rendered, split_unfit, start
from promptmill.worker.sdxl.program import AnyProgram
from promptmill.worker.settings import WorkerSettings
from promptmill.worker.shape_scheduler import Turns

logger = logging.getLogger(__name__)
logging.getLogger("jax").setLevel(logging.WARNING)  # at INFO it tells of every accelerator that is not there

IDLE_S = 0.1  # between two looks for work
AFTER_ERROR_S = 1.0


class PullLoop:
    """The threads and what they share. Settings aside, it needs of the Celery worker its name, app and pool."""

    def __init__(self, settings: WorkerSettings, worker: Any) -> None:
        self._settings = settings
        self._pool = worker.pool
        self._client = client_of(settings.broker)
        consumer = f"{worker.hostname}/{secrets.token_hex(4)}"  # a restarted worker is another consumer
        self._queue = JobQueue(self._client, consumer, lease_s=settings.lease_s)
        self._events = JobEvents(worker.app, worker.hostname)
        self._report = WorkerReport(worker.hostname, "starting")
        self._in_flight = InFlight()
        self._slots = Slots(settings.batches_in_flight)
        self._rate = Rate()
        self._turns = Turns()
        self._on_device: queue.SimpleQueue[tuple[Batch, int]] = queue.SimpleQueue()
        self._claiming = threading.Lock()
        self._stopping = threading.Event()  # claim nothing more
        self._give_up = threading.Event()  # wait for no output and no Redis any more
        self._finisher = Finisher(
            self._queue,
            self._events,
            is_revoked=celery_state.revoked.__contains__,
            give_up=self._give_up,
            settings=settings,
        )
        self._checks: Checks
        self._programs: Programs

    def start(self) -> None:
        for work in (self._pull_all, self._fetch_all, self._keep_all):
            threading.Thread(target=work, name=work.__name__.strip("_"), daemon=True).start()

    def stop(self, drain_s: float) -> None:
        """Claims no more, finishes what is held within `drain_s` seconds, and gives back what is not finished."""
        if self._give_up.is_set():
            return
        self._say(state="draining")
        with self._claiming:  # a claim that is under way is held before we look what is held
            self._stopping.set()
        if not self._in_flight.wait_until_empty(drain_s):
            logger.warning(
                "giving back %d jobs that are not finished after %.0f s", len(self._in_flight.all()), drain_s
            )
        self._give_up.set()
        self._finisher.release(self._in_flight.all())
        self._events.close()
        try:
            self._queue.leave()
            Workers(self._client).leave(self._report.name)
            if self._orphaned():
                self._client.shutdown(nosave=True)  # the Redis was started for us, and nobody is left to stop it
        except redis.RedisError as error:
            logger.warning("could not sign off: %s", error)

    def _orphaned(self) -> bool:
        return self._settings.parent_pid not in (0, os.getppid())

    def _say(self, **fields: Any) -> None:
        self._report = dataclasses.replace(self._report, **fields)

    # The puller's thread.

    def _pull_all(self) -> None:
        try:
            self._get_ready()
        except Exception:
            logger.critical("this worker cannot start", exc_info=True)
            self._stopping.set()
            os.kill(os.getpid(), signal.SIGTERM)
        while not self._stopping.is_set():
            try:
                if not self._pull_one():
                    self._stopping.wait(IDLE_S)
            except redis.RedisError as error:
                logger.warning("Redis does not answer: %s", error)
                self._stopping.wait(AFTER_ERROR_S)
            except Exception:
                logger.exception("the puller goes on after this")
                self._stopping.wait(AFTER_ERROR_S)

    def _get_ready(self) -> None:
        """Everything slow that can be done before the first claim."""
        devices = jax.local_devices()
        self._say(platform=devices[0].platform, devices=len(devices))
        self._checks = load_checks(self._settings)
        self._programs = Programs(self._settings, self._checks)
        if self._settings.model:
            try:
                self._programs.preload(self._settings.model)
            except Exception as error:
                logger.exception("no program for %s", self._settings.model)
                self._refuse(self._settings.model, error)
        self._say(state="ready")
        logger.info("ready to claim, on %d %s devices", len(devices), devices[0].platform)

    def _pull_one(self) -> bool:
        """Starts a batch; False where there is nothing to do."""
        if not self._slots.take(1, IDLE_S):
            return True
        claims: list[Claim] = []
        try:
            shape = self._turns.next(self._queue.claimable(), self._programs.trouble)
            program = self._program(shape) if shape else None
            if shape and program:
                claims = self._claim(shape, program.batch)
        finally:
            if not claims:
                self._slots.give(1)
        if program and claims:
            self._start(program, claims)
        return bool(claims)

    def _program(self, shape: Shape) -> AnyProgram | None:
        """The shape's program, made now if need be, while nothing is claimed for it; None where it cannot be."""
        is_new = shape not in self._programs
        if is_new:
            self._say(state="compiling", shape=shape.key)
            self._queue.promise(shape)
        try:
            program = self._programs.get(shape)
        except RequestError as error:  # the model has no such shape, on any worker
            self._fail_all(shape, str(error))
            return None
        except Exception as error:
            logger.exception("no program for %s", shape.key)
            self._refuse(shape.model, error)
            return None
        if is_new:
            self._turns.begin()
        cured = {model: why for model, why in self._report.problems.items() if model != shape.model}
        self._say(state="rendering", shape=shape.key, problems=cured)
        return program

    def _refuse(self, model: str, error: Exception) -> None:
        logger.error("cannot render with %s: %s", model, error)
        self._turns.refuse(model)
        self._say(state="ready", problems={**self._report.problems, model: str(error)})

    def _fail_all(self, shape: Shape, reason: str) -> None:
        for claim in self._queue.claim(shape, 100):
            self._events.received(claim)
            self._finisher.fail(claim, reason)

    def _claim(self, shape: Shape, count: int) -> list[Claim]:
        """Claims for the next batch, those left out that were revoked."""
        with self._claiming:
            claims = [] if self._stopping.is_set() else self._queue.claim(shape, count)
            self._in_flight.add(claims)
        for claim in claims:
            self._events.received(claim)
        for claim in claims:
            if claim.job.id in celery_state.revoked:
                self._finisher.revoke(claim)
                self._in_flight.remove([claim])
        return [claim for claim in claims if claim.job.id not in celery_state.revoked]

    def _start(self, program: AnyProgram, claims: list[Claim]) -> None:
        """Puts the claims on the device; one on its last chance with nothing else in flight that it could kill."""
        taken = 1
        if claims[0].last_chance:
            self._slots.give(1)
            taken = self._slots.count
            while not self._slots.take(taken, IDLE_S):
                if self._stopping.is_set():
                    self._finisher.release(claims)
                    self._in_flight.remove(claims)
                    return
        for claim in claims:
            self._events.started(claim)
        batch = self._try_start(program, claims)
        if batch:
            self._on_device.put((batch, taken))
        else:
            self._slots.give(taken)

    def _try_start(self, program: AnyProgram, claims: list[Claim]) -> Batch | None:
        try:
            return start(program, claims, self._checks)
        except RequestError:
            fit, unfit = split_unfit(program, claims)
            for claim, reason in unfit:
                self._finisher.fail(claim, reason)
                self._in_flight.remove([claim])
            return self._try_start(program, fit) if fit else None
        except Exception as error:  # noqa: BLE001 - whatever it is, the next batch goes on
            self._lose(claims, error)
            return None

    def _lose(self, claims: Sequence[Claim], error: Exception) -> None:
        """A whole batch failed, and nobody knows through which job: each gets another try."""
        logger.error("a batch of %d was lost", len(claims), exc_info=error)
        self._finisher.retry(claims, f"{type(error).__name__}: {error}")
        self._in_flight.remove(claims)

    # The fetcher's thread.

    def _fetch_all(self) -> None:
        while True:
            batch, taken = self._on_device.get()
            try:
                images = batch.fetch()
            except Exception as error:  # noqa: BLE001 - an XLA error, say: the next batch goes on
                self._lose(batch.claims, error)
                self._slots.give(taken)
                continue
            left = Latch(len(batch.claims), self._slots, taken)
            for rendered in images:
                try:
                    self._pool.apply_async(self._finish, (rendered, left))
                except RuntimeError:  # the pool was shut before us: a second Ctrl-C
                    self._finisher.release([rendered.claim])
                    self._in_flight.remove([rendered.claim])
                    left.one_less()

    # The pool's threads.

    def _finish(self, rendered: Rendered, left: Latch) -> None:
        try:
            if self._finisher.finish(rendered):
                self._rate.count()
        finally:
            self._in_flight.remove([rendered.claim])
            left.one_less()

    # The keeper's thread.

    def _keep_all(self) -> None:
        renew_every_s = self._settings.lease_s / 3
        renewed = reported = 0.0
        while not self._give_up.wait(min(renew_every_s, REPORT_EVERY_S) / 2):
            now = time.monotonic()
            try:
                if now - renewed >= renew_every_s:
                    self._renew()
                    renewed = now
                if now - reported >= REPORT_EVERY_S:
                    self._say(images=self._rate.images, images_per_s=self._rate.images_per_s())
                    Workers(self._client).report(self._report)
                    reported = now
            except redis.RedisError as error:
                logger.warning("leases could not be renewed: %s", error)
            if self._orphaned() and not self._stopping.is_set():
                logger.warning("the process that started this worker is gone: stopping")
                self._stopping.set()
                os.kill(os.getpid(), signal.SIGTERM)

    def _renew(self) -> None:
        for claim in self._queue.renew(self._in_flight.all()):
            # Another worker has it by now. What is under way is finished: the output takes one of the two.
            logger.warning("lost the lease of job %s (%s/%d)", claim.job.id, claim.run, claim.index)
            self._in_flight.remove([claim])
