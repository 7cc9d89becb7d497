"""The job streams: enqueue, claim, renew, release, settle. One Redis Stream per run and shape, with one consumer group.

A claim is an entry in the group's list of pending entries: its consumer is the worker, its idle time what is used up of
the lease, its delivery count how many workers have had it. keys.py has the keys, scripts/ what Redis does in one
step: a crash between two steps leaves a job either where it was or where it was going.

At least once, and once in the end: a job leaves its stream only by `settle`, after its object is safe; one that two
workers render after all is written once by the output and counted once by its bit.

A batch is of one shape and may be of several runs: of the highest priority first, and among equals in turn.
"""

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import redis

from promptmill.producer.errors import JobError, LedgerError
from promptmill.producer.job import Job, Shape
from promptmill.producer.queue.keys import SHAPES
from promptmill.producer.queue.ledger import MAX_INDEX_DIGITS
from promptmill.producer.queue.malformed import Malformed, MalformedEntry
from promptmill.producer.queue.priorities import PRIORITIES
from promptmill.producer.queue.scripts import Script

logger = logging.getLogger(__name__)

MAX_DELIVERIES = 3
"""A job that this many workers had and did not settle is given up: it may be what killed them."""

CHUNK = 500  # jobs per script call: some 100 kB, a few milliseconds of Redis' one thread

OVER_ANY_LEASE_MS = 86_400_000  # an idle time: whoever looks may claim it

Entry = tuple[int, str, str]
"""A job to enter: its index in the run, its shape's key, canonical JSON of its fields that the run does not share."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that a worker holds until it settles or releases it, or its lease runs out."""

    entry: str
    shape: Shape
    run: str
    index: int
    deliveries: int
    job: Job
    output: str
    opened: str = ""
    """When its run was opened: another run of the same name is not settled by this claim."""
    again: bool = False
    """Whether it was entered anew after it had failed, was revoked, or lost its image."""
    encoding: str = ""
    """How its image is to be written, as its run asks (image_formats.py)."""

    @property
    def entered_s(self) -> float:
        """When it was entered, in seconds since the epoch by the clock of Redis."""
        return int(self.entry.partition("-")[0]) / 1000

    @property
    def last_chance(self) -> bool:
        """Whether this delivery is the last: the job is rendered with nothing beside it that it could take along."""
        return self.deliveries >= MAX_DELIVERIES


@dataclass(frozen=True, slots=True)
class Ready:
    """A shape with a job that a worker could claim now."""

    shape: Shape
    priority: int
    """Of the run that would be served, as in PRIORITIES."""
    waited_s: float
    """For how long no worker has claimed any of the shape."""
    run_waited_s: float = 0.0
    """For how long no worker has claimed any job, of whatever shape, of the run that would be served."""


class JobQueue:
    """The job streams of one Redis, as one consumer sees them. Thread-safe.

    `has_image` is asked before a job is given up: whoever took it last may have died after writing its image.
    """

    def __init__(
        self,
        client: redis.Redis,
        consumer: str = "producer",
        *,
        lease_s: float = 30.0,
        has_image: Callable[[Claim], bool] = lambda claim: False,
    ) -> None:
        self._consumer = consumer
        self._has_image = has_image
        self._lease_ms = int(lease_s * 1000)
        self._client: Any = client
        self._malformed = Malformed(client)
        self._enqueue, self._reenter = self._script("enqueue"), self._script("reenter")
        self._claimable, self._claim = self._script("claimable"), self._script("claim")
        self._promise, self._renew = self._script("promise"), self._script("renew")
        self._release, self._settle = self._script("release"), self._script("settle")
        self._release_all_but = self._script("release_all_but")
        self._leave, self._backlog = self._script("leave"), self._script("backlog")
        self._waiting = self._script("waiting")

    def _script(self, name: str) -> Script:
        return Script(self._client, name)

    # What a submitter does.

    def enqueue(
        self, run: str, start: int, end: int, entries: Iterable[Entry], present: Sequence[int] = (), *, pipe: Any = None
    ) -> int:
        """Enter the run's indexes `start` to `end` in one step, unless they are in already.

        `entries` are the jobs to render, `present` the indexes whose image is there. Returns how far the run is
        entered, which is `end` after a success, and further where another submitter was faster. With a pipeline as
        `pipe` the call is queued there and `end` returned; `entered` then reads the answer. Raises LedgerError.
        """
        by_shape: dict[str, list[Any]] = {}
        for index, shape, job in entries:
            by_shape.setdefault(shape, []).extend((index, job))
        grouped: list[Any] = []
        for shape, pairs in by_shape.items():
            grouped += (shape, len(pairs) // 2, *pairs)
        answer = self._enqueue(run, start, end, json.dumps(list(present)), *grouped, client=pipe)
        return end if pipe is not None else entered(run, answer)

    def reenter(self, run: str, entries: Iterable[Entry]) -> int:
        """Enters jobs anew that count as done or failed: an image that somebody deleted, another try. Returns how many.

        What waits, or is with a worker, is left alone. Raises LedgerError.
        """
        count = 0
        left = iter(entries)
        while chunk := list(islice(left, CHUNK)):
            count += entered(run, self._reenter(run, *(part for entry in chunk for part in entry)))
        return count

    # What a worker does.

    def claimable(self, *, pass_over: Iterable[str] = ()) -> list[Ready]:
        """The shapes that have a job for whoever asks, by key. What is paused or cancelled is not, nor is what would go
        into one of the outputs to `pass_over`."""
        ranks = sorted(PRIORITIES.values(), reverse=True)
        return [
            Ready(shape, ranks[rank], waited / 1e6, run_waited / 1e6)
            for key, rank, waited, run_waited in sorted(self._claimable.raw(self._lease_ms, *pass_over))
            if (shape := self._shape(key))
        ]

    def _shape(self, key: bytes) -> Shape | None:
        """The shape of a key; None, and swept, where it is none."""
        try:
            return Shape.from_key(key.decode())
        except (ValueError, AssertionError) as error:
            logger.error("swept %r from the set of shapes: it is not a shape: %s", key, error)
            self._client.srem(SHAPES, key)
            return None

    def claim(self, shape: Shape, count: int, *, pass_over: Iterable[str] = ()) -> list[Claim]:
        """Up to `count` jobs of one shape, held from now on, of one run or several: the higher priority first, and of
        equals the one that was served least. Of each run, first what dead workers held, then new jobs.

        None goes into one of the outputs to `pass_over`. A job on its last delivery comes alone. One that was given up,
        or cannot be read, is settled as failed here.
        """
        claims: list[Claim | None] = []
        found = self._claim.raw(shape.key, self._consumer, count, self._lease_ms, MAX_DELIVERIES, *pass_over)
        for run, output, shared, opened, encoding, entries in found:
            where = (run.decode(), _readable(output), _readable(opened), _readable(encoding))
            for entry, deliveries, flat in entries:
                fields = dict(zip(flat[::2], flat[1::2], strict=False))
                claims.append(self._to_claim(_Delivery(entry.decode(), shape, *where, int(deliveries), fields), shared))
        return [claim for claim in claims if claim is not None]

    def promise(self, shape: Shape) -> None:
        """This worker will claim from the shape, but has to load or compile first: others need not do the same."""
        self._promise(shape.key)

    def renew(self, claims: Iterable[Claim]) -> list[Claim]:
        """Starts the lease of these claims anew; returns those that another worker has by now."""
        held = list(claims)
        lost = self._renew(self._consumer, *_names(held)) if held else []
        return [held[number] for number in lost]

    def release(self, claims: Iterable[Claim], *, counted: bool = False, later: bool = False) -> None:
        """Gives jobs back, to be claimed by anybody at once, or `later`: when a lease is over.

        `counted`: this delivery counts as one of the three.
        """
        self._release(self._consumer, int(counted), 0 if later else OVER_ANY_LEASE_MS, *_names(claims))

    def release_all_but(self, held: Iterable[Claim]) -> int:
        """Give back what is pending under this consumer's name and not in its hands; how many jobs that were.

        So it is with a claim whose answer was lost: Redis gave the jobs, and nobody knows of them. Not to be called
        while a claim is on its way.
        """
        return int(self._release_all_but(self._consumer, *_names(held)))

    def done(self, claim: Claim, *, cut: bool = False) -> bool:
        """The job's object is safe; `cut`: without the end of a prompt that was too long.

        False where the job was done before, or its run was purged.
        """
        return self._settle_one(claim.run, claim.shape, claim.entry, claim.index, "", claim.opened, cut)

    def failed(self, claim: Claim, reason: str) -> bool:
        """The job is given up, for a reason that a user can read. False where it was settled before."""
        failure = json.dumps({"id": claim.job.id, "reason": reason}, ensure_ascii=False)
        return self._settle_one(claim.run, claim.shape, claim.entry, claim.index, failure, claim.opened)

    def leave(self) -> None:
        """Give back all that is pending under this consumer's name, and take it out of all groups."""
        self.release_all_but(())
        self._leave(self._consumer)

    # What a person sees.

    def backlog(self) -> dict[Shape, tuple[int, int]]:
        """Of each shape with unsettled jobs: how many wait, those of paused runs too, and how many workers hold."""
        found = ((self._shape(key), waiting, held) for key, waiting, held in sorted(self._backlog.raw()))
        return {shape: (waiting, held) for shape, waiting, held in found if shape is not None}

    def waiting(self) -> dict[Shape, list[tuple[str, int, int]]]:
        """The same run by run: its name, how many wait, and how many workers hold."""
        found = ((self._shape(key), runs) for key, runs in sorted(self._waiting.raw()))
        told = {shape: runs for shape, runs in found if shape is not None}
        return {s: [(run.decode(), waiting, held) for run, waiting, held in sorted(runs)] for s, runs in told.items()}

    def _to_claim(self, d: "_Delivery", shared: bytes) -> Claim | None:
        """The claim of a delivery; None where there is no job in it, or it was had too often: that is settled here."""
        try:
            index = d.index
        except ValueError as error:
            total = self._malformed.set_aside(d.run, d.shape, d.entry, d.fields, str(error))
            logger.error("set aside an entry of run %s that cannot be read (%d so far): %s", d.run, total, error)
            return None
        try:
            job = Job(**{**json.loads(shared), **json.loads(d.fields[b"job"])})
        except (JobError, TypeError, ValueError, KeyError, RecursionError) as error:
            failure = {"id": "", "reason": f"a worker of another version? it cannot read the job: {_words(error)}"}
            self._settle_one(d.run, d.shape, d.entry, index, json.dumps(failure), d.opened)
            return None
        run = (d.output, d.opened, b"again" in d.fields, d.encoding)
        claim = Claim(d.entry, d.shape, d.run, index, d.deliveries, job, *run)
        if d.deliveries > MAX_DELIVERIES:
            if self._has_image(claim):
                self.done(claim)
            else:
                self.failed(claim, f"given up: {MAX_DELIVERIES} workers took it and none came back")
            return None
        return claim

    def _settle_one(
        self, run: str, shape: Shape, entry: str, index: int, failure: str, opened: str, cut: bool = False
    ) -> bool:
        return bool(self._settle(run, shape.key, entry, index, failure, opened, int(cut)))


def entered(run: str, answer: int) -> int:
    """What a script says of jobs entered. Raises LedgerError where it would not enter them."""
    if answer == -1:
        raise LedgerError(f"run {run!r} is not in this Redis any more")
    if answer == -2:
        raise LedgerError(f"run {run!r} was cancelled; `promptmill resume {run} --output URL` takes it up again")
    return int(answer)


@dataclass(frozen=True, slots=True)
class _Delivery:
    """An entry as it comes out of its stream; its fields may be anybody's bytes."""

    entry: str
    shape: Shape
    run: str
    output: str
    opened: str
    encoding: str
    deliveries: int
    fields: Mapping[bytes, bytes]

    @property
    def index(self) -> int:
        """Of its job in the run. Raises MalformedEntry."""
        if next(iter(self.fields), None) != b"i":
            raise MalformedEntry("its first field is not i, the job's index in the run")
        text = self.fields[b"i"]
        if not text.isdigit() or len(text) > MAX_INDEX_DIGITS:
            raise MalformedEntry(f"i is not an index: {text[:40]!r}")
        return int(text)


def _words(error: Exception) -> str:
    return "it has no job" if isinstance(error, KeyError) else str(error) or type(error).__name__


def _readable(data: bytes | None) -> str:
    return (data or b"").decode(errors="replace")


def _names(claims: Iterable[Claim]) -> list[str]:
    """Of each claim its run, shape key and entry."""
    return [part for claim in claims for part in (claim.run, claim.shape.key, claim.entry)]
