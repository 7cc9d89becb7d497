"""The puller's thread: a shape with work and a program, a batch of claims, and off to the device."""

import contextlib
import logging
import threading
from collections.abc import Iterator

import redis

from promptmill.producer.backoff import backoff
from promptmill.producer.errors import PromptmillError
from promptmill.producer.job import Shape
from promptmill.producer.queue.queue import Claim
from promptmill.producer.queue.workers import Workers
from promptmill.worker.checks import Checks, load_checks
from promptmill.worker.compiler import Compiler
from promptmill.worker.credentials import load_signer
from promptmill.worker.devices import Devices, is_out_of_memory
from promptmill.worker.errors import RequestError
from promptmill.worker.giving_up import GivingUp
from promptmill.worker.host import Host
from promptmill.worker.in_flight import Slot
from promptmill.worker.observers import timed
from promptmill.worker.program import AnyProgram
from promptmill.worker.programs import Programs, default_shape
from promptmill.worker.render import FIRST_PAUSE_S, MAX_PAUSE_S, Batch, split_unfit, start
from promptmill.worker.shape_scheduler import Turns

logger = logging.getLogger(__name__)
logging.getLogger("jax").setLevel(logging.WARNING)  # at INFO it tells of every accelerator that is not there

IDLE_S = 0.1  # between two looks for work


def _pauses() -> Iterator[float]:
    return backoff(first_s=FIRST_PAUSE_S, most_s=MAX_PAUSE_S)


class Puller:
    """Its thread runs `run`."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._turns = Turns()
        self._checks: Checks
        self._compiler: Compiler
        self._giving_up = GivingUp(host)

    def run(self) -> None:
        host = self._host
        try:
            self._get_ready()
        except Exception as error:
            known = isinstance(error, PromptmillError)
            logger.critical("this worker cannot start: %s", error, exc_info=None if known else error)
            host.end(f"this worker cannot start: {error}")
        pauses = _pauses()
        while not host.stopping.is_set():
            try:
                worked = self._pull()
                pauses = _pauses()
            except redis.RedisError as error:
                logger.warning("Redis does not answer: %s", error)
                host.stopping.wait(next(pauses))
            except Exception:
                logger.exception("the puller failed, and continues")
                host.stopping.wait(next(pauses))
            else:
                if not worked:
                    host.stopping.wait(IDLE_S)

    def _get_ready(self) -> None:
        """Everything slow that can be done before the first claim."""
        host = self._host
        try:
            devices = Devices.of()
        except RuntimeError as error:
            raise PromptmillError(f"JAX finds no device: {error}") from error
        host.report.devices(devices.platform, devices.count)
        self._checks = load_checks(host.settings)
        host.finisher.signer = load_signer(host.settings)
        host.programs = Programs(host.settings, self._checks)
        self._compiler = Compiler(host)
        self._look_at_revokes()
        if host.settings.model:
            self._preload(host.settings.model)
        for part in (self._compiler, self._giving_up):
            threading.Thread(target=part.run, name=type(part).__name__.lower(), daemon=True).start()
        host.report.phase("ready")
        with contextlib.suppress(redis.RedisError):  # whoever waits for it need not wait for the keeper's next report
            Workers(host.client).report(host.report.now())
        logger.info("ready to claim, on %d %s devices", devices.count, devices.platform)

    def _look_at_revokes(self) -> None:
        try:
            self._host.revoked.look()
        except redis.RedisError as error:  # the keeper looks again
            logger.warning("revokes could not be read: %s", error)

    def _preload(self, model: str) -> None:
        """Make the program of the model's own size. What is wrong with the model does not end this worker."""
        try:
            shape = default_shape(model)
        except PromptmillError as error:
            logger.error("cannot render with %s: %s", model, error)
            self._host.report.trouble(model, str(error))
            return
        try:
            if self._host.compiling.begin(shape).begun:
                self._compiler.make(shape)
            else:
                logger.warning("%s is not compiled yet: it killed workers before", shape.key)
        except Exception as error:
            logger.exception("no program for %s", shape.key)
            self._refuse(shape, error)

    def _pull(self) -> bool:
        """Start a batch; False where there is nothing to do."""
        host = self._host
        host.report.paused(host.is_paused())
        if host.is_paused():
            return False
        for failed, error in self._compiler.failures():
            self._not_made(failed, error)
        with host.in_flight.slot(IDLE_S) as slot:
            if slot is None:
                return True
            chosen = self._choose()
            if chosen is None:
                return False
            shape, program = chosen
            claims = host.claim(shape, program.batch, slot, pass_over=host.outputs.to_pass_over())
            if not claims:
                return False
            try:
                batch = self._start(program, claims, slot)
            except Exception as error:  # noqa: BLE001 - whatever it is, the next batch goes on
                host.lose(program, claims, error)
            else:
                if batch:
                    host.on_device.put(batch)
            return True

    def _choose(self) -> tuple[Shape, AnyProgram] | None:
        """The shape of the next batch and its program. Beside it, what else is wanted is compiled."""
        host = self._host
        found = host.queue.claimable(pass_over=host.outputs.to_pass_over())
        ready = [one for one in found if one.shape not in self._giving_up]
        if self._compiler.is_free:
            wanted = self._turns.to_make(ready, self._host.programs.trouble, host.compiling.deaths)
            if wanted:
                self._compiler.begin(wanted)
        if host.alone.is_set():
            return None
        shape = self._turns.next([one for one in ready if one.shape in self._host.programs])
        program = self._host.programs.at_hand(shape) if shape else None
        if not shape or not program:
            return None
        host.report.cured(shape.model)
        host.report.serving(shape.key)
        return shape, program

    def _not_made(self, shape: Shape, error: Exception) -> None:
        """What becomes of the jobs whose program could not be made: no worker can, or another may, or later."""
        reason = str(error)
        if not isinstance(error, RequestError):
            logger.error("no program for %s", shape.key, exc_info=error)
            self._refuse(shape, error)
            waited_s, limit_s = self._host.compiling.refused(shape), self._host.settings.unloadable_after_s
            if not limit_s or waited_s < limit_s:
                return
            reason = f"no worker could make a program for it in {waited_s:.0f} s: {reason}"
        self._giving_up.begin(shape, reason)

    def _refuse(self, shape: Shape, error: Exception) -> None:
        """Leave the jobs to other workers for a while: those of the model, or of a shape too large for the device."""
        what, key = (shape, shape.key) if is_out_of_memory(error) else (shape.model, shape.model)
        logger.error("cannot render with %s: %s", key, error)
        self._turns.refuse(what)
        self._host.report.trouble(key, str(error))

    def _start(self, program: AnyProgram, claims: list[Claim], slot: Slot) -> Batch | None:
        """Put the claims on the device; one on its last chance with nothing else in flight that it could kill."""
        host = self._host
        if claims[0].last_chance:
            while not host.in_flight.make_alone(slot, IDLE_S):
                if host.stopping.is_set():
                    with host.in_flight.leaving(claims):
                        host.finisher.release(claims)
                    return None
        for claim in claims:
            host.observer.started(claim)
        try:
            return self._dispatch(program, claims)
        except RequestError:
            fit, unfit = split_unfit(program, claims)
            for claim, reason in unfit:
                with host.in_flight.leaving([claim]):
                    host.finisher.fail(claim, reason)
            return self._dispatch(program, fit) if fit else None

    def _dispatch(self, program: AnyProgram, claims: list[Claim]) -> Batch:
        with timed(self._host.observer, "tokenise", len(claims)):
            return start(program, claims, self._checks)
