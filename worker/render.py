"""The way of one batch: tokens -> images -> files -> output -> ledger. Read this first.

    claims = queue.claim(shape, program.batch)           pull.py: the puller's thread
    batch = start(program, claims)                       tokens and noise, then the device works on its own
    batch.fetch()                                        fetch.py: the fetcher's thread waits for the device
    Finisher.finish(rendered)                            encode, upload, settle: the Celery pool's threads, a job each

A job leaves the queue in `finish` and nowhere else: done after its object is safe, failed with a reason, or released
for another try. Whatever happens to one job, its neighbours land.
"""

import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any, TypeVar

import numpy as np
import redis
from jaxtyping import UInt8

from promptmill.producer.backoff import backoff
from promptmill.producer.image_formats import Encoding, ImageFormatError
from promptmill.producer.layout import JOB_ID_KEY, Look, image_metadata, image_name, look_inside
from promptmill.producer.outputs.open import open_output
from promptmill.producer.outputs.output import Existing, Output, OutputError, OutputRefused, OutputUnavailable
from promptmill.producer.presence import look_at
from promptmill.producer.queue.ledger import REVOKED
from promptmill.producer.queue.queue import Claim, JobQueue
from promptmill.worker.checks import Checks, Findings
from promptmill.worker.credentials import Signer
from promptmill.worker.encode import encode, job_id_inside, job_record
from promptmill.worker.errors import RequestError
from promptmill.worker.observers import Observer, timed
from promptmill.worker.output_trouble import Blame, OutputTrouble
from promptmill.worker.post_processing import treat
from promptmill.worker.program import AnyProgram, Result, fetch, wait_for
from promptmill.worker.settings import WorkerSettings

logger = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.2
MAX_PAUSE_S = 15.0  # between two tries of an output or a Redis that does not answer

T = TypeVar("T")


class Stopping(Exception):
    """The worker has to stop now, before this job could be settled; it is released for others."""


@dataclass(frozen=True)
class Rendered:
    """One job's image as the device gave it, and what there is to say of it beside the job."""

    claim: Claim
    pixels: UInt8[np.ndarray, "H W 3"]
    fault: str | None = None
    """Why it is no image."""
    findings: Findings = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)  # seconds


@dataclass(frozen=True)
class Batch:
    """Claims of one shape, and their images once the device has them."""

    program: AnyProgram
    claims: Sequence[Claim]
    result: Result
    cuts: Sequence[Mapping[str, str]]
    """Of each claim, the prompts' ends that the model could not take, by field."""
    started: float  # time.monotonic(), seconds
    checks: Checks
    asked: Mapping[str, Any]
    """What the checks were asked, by name."""

    def wait(self) -> None:
        """Until the device has rendered it. Raises what XLA raises where it failed."""
        wait_for(self.result)

    def fetch(self) -> list[Rendered]:
        """One for each claim, of a batch that was waited for."""
        images = fetch(self.result, len(self.claims))
        findings = self.checks.finish(self.asked, images.pixels)
        return [
            Rendered(
                claim, pixels, _fault(finite, plain), found, {"prompt_cut": dict(cut)} if cut else {}, self.started
            )
            for claim, pixels, finite, plain, found, cut in zip(self.claims, *images, findings, self.cuts, strict=True)
        ]


def _fault(finite: bool, plain: bool) -> str | None:
    if not finite:
        return "the model gave NaN or infinite values (float16 weights that overflow, often the VAE's)"
    if plain:
        return "the model gave an image of one colour (broken weights, or a sampler that does not suit them)"
    return None


def start(program: AnyProgram, claims: Sequence[Claim], checks: Checks) -> Batch:
    """Puts a batch on the device and returns at once. Raises RequestError where a job does not fit the model."""
    prepared = program.prepare([claim.job for claim in claims])
    for claim, cut in zip(claims, prepared.cuts, strict=True):
        for name, text in cut.items():
            where = claim.job.id, claim.run, claim.index
            logger.warning("job %s (%s/%d): %s is too long, its end was truncated: %r", *where, name, text)
    result = program.run(prepared)
    return Batch(program, claims, result, prepared.cuts, time.monotonic(), checks, checks.start(result.pixels))


def split_unfit(program: AnyProgram, claims: Sequence[Claim]) -> tuple[list[Claim], list[tuple[Claim, str]]]:
    """The claims that the program takes, and those that it does not, each with the reason."""
    fit: list[Claim] = []
    unfit: list[tuple[Claim, str]] = []
    for claim in claims:
        try:
            program.prepare([claim.job])
            fit.append(claim)
        except RequestError as error:
            unfit.append((claim, str(error)))
    return fit, unfit


class Finisher:
    """What happens to a job after the device: encode, upload, settle. Thread-safe."""

    def __init__(
        self,
        queue: JobQueue,
        observer: Observer,
        outputs: OutputTrouble,
        *,
        is_revoked: Callable[[Claim], bool],
        give_up: threading.Event,
        settings: WorkerSettings,
        worker: str = "",
        open_run: Callable[[str, str], Output] | None = None,
    ) -> None:
        self._queue = queue
        self._observer = observer
        self._outputs = outputs
        self._is_revoked = is_revoked
        self._give_up = give_up
        self._settings = settings
        self._open_run = open_run or _run_outputs()
        self.signer: Signer | None = None
        self.worker = worker

    def finish(self, rendered: Rendered) -> bool:
        """Takes one rendered job to its end. True where its image is safe."""
        claim = rendered.claim
        if self._is_revoked(claim):
            self.revoke(claim)
            return False
        if rendered.fault is not None:
            self.fail(claim, rendered.fault)
            return False
        try:
            treated = treat(rendered.pixels, rendered.findings, self._settings)
            if treated.failure is not None:
                self.fail(claim, treated.failure)
                return False
            url = self._put(replace(rendered, pixels=treated.pixels, notes={**rendered.notes, **treated.notes}))
            # Before the job is settled: whoever dies in between leaves a job that is told again, not one never told.
            self._observer.succeeded(claim, url, time.monotonic() - rendered.started)
            with timed(self._observer, "settle"):
                self._patiently(lambda: self._queue.done(claim, cut="prompt_cut" in rendered.notes))
        except Stopping:
            self.release([claim])
            return False
        except OutputRefused as error:
            self._give_back(claim, error)
            return False
        except OutputError as error:
            self.fail(claim, str(error))
            return False
        except Exception as error:  # one bad job harms one job, whatever is wrong with it
            logger.exception("job %s of run %s", claim.job.id, claim.run)
            self.retry([claim], f"{type(error).__name__}: {error}")
            return False
        return True

    def fail(self, claim: Claim, reason: str) -> None:
        """Gives the job up, for a reason that a user can read."""
        logger.error("job %s (%s/%d) failed: %s", claim.job.id, claim.run, claim.index, reason)
        self._observer.failed(claim, reason)  # before it is settled, as above
        with contextlib.suppress(Stopping):  # then its lease runs out, and another worker finds the same
            self._patiently(lambda: self._queue.failed(claim, reason))

    def revoke(self, claim: Claim) -> None:
        """Drops a job that somebody revoked, in Flower or with `celery control revoke`."""
        self._observer.revoked(claim)
        with contextlib.suppress(Stopping):
            self._patiently(lambda: self._queue.failed(claim, REVOKED))

    def retry(self, claims: Sequence[Claim], reason: str) -> None:
        """Another try for each, by anybody; its delivery counts. What was on its last is failed with the reason."""
        for claim in claims:
            if claim.last_chance:
                self.fail(claim, reason)
        again = [claim for claim in claims if not claim.last_chance]
        with contextlib.suppress(Stopping):
            self._patiently(lambda: self._queue.release(again, counted=True))
        for claim in again:
            self._observer.retried(claim, reason)

    def _give_back(self, claim: Claim, error: OutputRefused) -> None:
        """The output refused the job. Whatever is rendered here meets the same: it is for others, or for later."""
        blame = self._outputs.refused(claim.output, claim.job.id, str(error))
        if blame is Blame.JOB:
            self.retry([claim], f"the output takes other images, and not this one: {error}")
        else:
            self.release([claim], f"given back: {error}", later=blame is Blame.OUTPUT_AGAIN)

    def release(
        self, claims: Sequence[Claim], reason: str = "given back by a worker that stops", *, later: bool = False
    ) -> None:
        """Gives jobs back through no fault of theirs: the delivery does not count. `later`: others are to go first."""
        try:
            self._queue.release(claims, later=later)
        except redis.RedisError as error:
            logger.warning("could not give %d jobs back; their leases run out: %s", len(claims), error)
        for claim in claims:
            self._observer.retried(claim, reason)

    def has_image(self, claim: Claim) -> bool:
        """Whether the job's image is in its output, whole. Raises OutputError."""
        name = image_name(claim.job.id, Encoding.parse(claim.encoding).row.extension)
        return look_at(self._open(claim), name, claim.job.id) is Look.OURS

    def _put(self, rendered: Rendered) -> str:
        """Writes the job's image, or finds it written; where it lies. Raises OutputError, Stopping."""
        claim, job = rendered.claim, rendered.claim.job
        data, row = self._encoded(rendered), Encoding.parse(claim.encoding).row
        name = image_name(job.id, row.extension)
        output = self._open(claim)

        def same_job(existing: Existing) -> bool:
            told = existing.size and existing.intact is not False and existing.metadata.get(JOB_ID_KEY) == job.id
            # As submitters look, too: Pillow shows an image whose last bytes are missing, and they enter it anew.
            return bool(told) or (looked(existing) is Look.OURS and job_id_inside(existing.read()) == job.id)

        def remains(existing: Existing) -> bool:  # not a whole image of the job, and nothing else either
            return looked(existing) is not Look.FOREIGN

        def looked(existing: Existing) -> Look:
            there = existing.read()
            return look_inside(job.id, len(there), lambda start, length: there[start:][:length], row.extension)

        more: dict[str, Any] = {"content_type": row.content_type, "metadata": _metadata(rendered, self.worker)}
        with timed(self._observer, "upload"):
            self._patiently(
                lambda: output.put_once(name, data, ours=same_job, broken=remains, **more),
                when_away=partial(self._outputs.away, claim.output),
            )
        self._observer.wrote(claim, len(data))
        self._outputs.worked(claim.output, job.id)
        return f"{output.url}/{name}"

    def _encoded(self, rendered: Rendered) -> bytes:
        """The image's file. Raises OutputRefused where its format cannot be written here: others may be able to."""
        with timed(self._observer, "encode"):
            try:
                encoding, xmp = Encoding.parse(rendered.claim.encoding), "xmp" in self._settings.layers
                data = encode(rendered.pixels, rendered.claim.job, rendered.notes, encoding=encoding, xmp=xmp)
            except ImageFormatError as error:
                raise OutputRefused(str(error)) from error
            if self.signer is not None:  # the last thing that happens to the bytes
                data = self.signer.sign(encoding.row.content_type, data)
        return data

    def _open(self, claim: Claim) -> Output:
        """The output of the claim's run. Whatever is wrong with its URL here is not wrong with the job."""
        try:
            return self._open_run(claim.output, claim.run)
        except OutputUnavailable:
            raise
        except OutputError as error:
            raise OutputRefused(str(error)) from error

    def _patiently(self, call: Callable[[], T], *, when_away: Callable[[str], None] = lambda why: None) -> T:
        """The call's result, however long the output or Redis is away. Raises Stopping when the worker must stop."""
        pauses = backoff(first_s=FIRST_PAUSE_S, most_s=MAX_PAUSE_S)
        while True:
            try:
                return call()
            except (OutputUnavailable, redis.RedisError) as error:  # also a Redis that answers and takes no writes
                pause_s = next(pauses)
                logger.warning("retrying in %.1f s: %s", pause_s, error)
                if isinstance(error, OutputUnavailable):
                    when_away(str(error))
                if self._give_up.wait(pause_s):
                    raise Stopping from error


def _metadata(rendered: Rendered, worker: str) -> dict[str, str]:
    """What the object says beside its bytes; the seconds are from the batch's start to here."""
    claim, render_s = rendered.claim, time.monotonic() - rendered.started
    record = json.loads(job_record(claim.job, rendered.notes))
    return image_metadata(claim.job.id, claim.run, claim.index, record, worker=worker, render_s=render_s)


def _run_outputs() -> Callable[[str, str], Output]:
    """Opens each run's output once: a bucket's client is expensive and shared."""
    lock = threading.Lock()
    opened: Any = cache(open_output)

    def open_run(url: str, run: str) -> Output:
        with lock:
            output: Output = opened(url)
        return output.child(run)

    return open_run
