"""Plan -> queue and ledger, in bulk. Safe to kill at any moment and to run again: what is in stays in, once."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import redis
from redis.client import NEVER_DECODE

from promptmill.producer.growth import Change, changes_since, placed
from promptmill.producer.outputs.open import open_output
from promptmill.producer.outputs.output import Output, OutputError
from promptmill.producer.plan import Plan
from promptmill.producer.plan_files import load_plan, read_run
from promptmill.producer.plan_lines import PlannedJob
from promptmill.producer.presence import Present, find_present
from promptmill.producer.queue.control import purge
from promptmill.producer.queue.keys import done_key
from promptmill.producer.queue.ledger import KEEP_S, REVOKED, Ledger, RunStatus, name_is_taken
from promptmill.producer.queue.queue import CHUNK, Entry, JobQueue, entered

CHUNKS_A_TRIP = 4
"""Script calls sent together: Redis works on the first while the others are on their way."""

LOOK_EVERY_S = 0.2
"""How often a bounded submission looks whether there is room."""


@dataclass(frozen=True, slots=True)
class Submission:
    """What a submission found and did. `jobs` are rows, `images` the distinct ones, `present` those in the output.

    Of the `enqueued`, so many had `failed` before, or were `revoked`: they are entered anew.
    `broken` images were cut off or empty, and are rendered anew; `taken` ones will fail, as something else has their
    names: `taken_names` are the first of those.
    """

    run: str
    output: str
    jobs: int
    images: int
    present: int
    enqueued: int
    failed: int = 0
    revoked: int = 0
    broken: int = 0
    taken: int = 0
    taken_names: tuple[str, ...] = ()


def submit(
    plan: Plan,
    *,
    output: Output,
    run: str,
    client: redis.Redis,
    sources: Sequence[str] = (),
    priority: str = "normal",
    max_pending: int | None = None,
    keep_s: int = KEEP_S,
    there: Present | None = None,
    progress: Callable[[int], None] = lambda entered: None,
    change: Change = Change.NONE,
) -> Submission:
    """Writes the plan to the output, enters the run in Redis, and enqueues what has no image yet.

    `output` is where runs lie; this one comes under its name. `there` is what is known to be in the output; without it,
    the output is listed. `max_pending` bounds the run's jobs in Redis: it waits for workers before it enters more.
    `progress` is told the indexes of the plan that are entered. Where the run has another plan, rows that were appended
    are entered too, and `change` says what may become of others. Raises PlanError, LedgerError, OutputError, and redis'
    own errors.
    """
    _check_name(Ledger(client), plan, output, run)
    with placed(output.child(run), run, plan, sources, change) as whole:
        _open(whole, output, run, client, priority, keep_s)
        there = there if whole is plan else None
        return _enter_all(whole, output.child(run), run, client, max_pending, there, progress)


def check_output(plan: Plan, output: Output, run: str, client: redis.Redis) -> None:
    """Check that `submit` may write the run: its name is free in Redis, and the output takes files.

    What is refused here leaves no folder behind. Raises LedgerError, OutputError, and redis' own errors.
    """
    _check_name(Ledger(client), plan, output, run)
    output.check()


def _check_name(ledger: Ledger, plan: Plan, output: Output, run: str) -> None:
    """Refuse a new run whose name stands for another one in Redis, before anything of it is written."""
    digest = ledger.digest(run)
    if digest is None or read_run(output.child(run)) is not None:
        return
    status = ledger.status(run)
    if digest != plan.digest or (status.output != output.url and not _may_move(status)):
        raise name_is_taken(run, status.output, output.url)


def _open(plan: Plan, output: Output, run: str, client: redis.Redis, priority: str, keep_s: int) -> None:
    """Enters the run in the ledger, or has the ledger follow a plan that was changed, or an output that was moved."""
    ledger = Ledger(client)
    _follow(ledger, output, run, client)
    ledger.open(
        run,
        output=output.url,
        digest=plan.digest,
        jobs=plan.jobs,
        images=plan.images,
        common=plan.common,
        priority=priority,
        keep_s=keep_s,
        encoding=str(plan.encoding),
    )


def _follow(ledger: Ledger, output: Output, run: str, client: redis.Redis) -> None:
    digest, now = ledger.digest(run), read_run(output.child(run))
    change = changes_since(now, digest) if digest is not None and now is not None else None
    if digest is None or now is None or change is None:
        return  # it is not known, or another run: the ledger says so
    status = ledger.status(run)
    if status.output != output.url:
        if _may_move(status):
            purge(client, run, force=True)
    elif change is Change.REPLACE:
        purge(client, run, force=True)
    elif change is Change.APPEND:
        ledger.grow(run, digest, digest=now["digest"], jobs=now["jobs"], images=now["images"])


def _may_move(status: RunStatus) -> bool:
    """Whether a run that Redis knows at one output may be taken up at another."""
    return status.finished or status.state == "cancelled" or _is_gone(status.output, status.run)


def _is_gone(url: str, run: str) -> bool:
    """Whether an output that was known has the run no more: it was moved."""
    try:
        return read_run(open_output(url).child(run)) is None
    except OutputError:
        return False


def _enter_all(
    plan: Plan,
    run_output: Output,
    run: str,
    client: redis.Redis,
    max_pending: int | None,
    there: Present | None,
    progress: Callable[[int], None],
) -> Submission:
    """Enters what is not in yet, and anew what was given up or has lost its image."""
    ledger, queue = Ledger(client), JobQueue(client)
    before = ledger.status(run).enqueued
    # Asked before the output is listed: an image that lands in between is not taken for one that was deleted.
    done = done_bits(client, run) if before else b""
    given_up = _given_up(ledger, run) if before else {}
    there = find_present(plan, run_output) if there is None or before else there
    enqueued = _Entering(plan, run, client, there, max_pending, progress).enter(before)
    gone = [at for at in set_indexes(done) if at < before and not there.indexes[at]] if before else []
    enqueued += queue.reenter(run, map(_entry, plan.at(gone)))
    again = {reason: queue.reenter(run, map(_entry, plan.at(sorted(ats)))) for reason, ats in given_up.items()}
    status = ledger.status(run)
    return Submission(
        run,
        run_output.url,
        status.jobs,
        status.images,
        there.images,
        enqueued + sum(again.values()),
        again.get(False, 0),
        again.get(True, 0),
        there.broken,
        there.taken,
        tuple(there.names),
    )


def resume(output: Output, run: str, client: redis.Redis) -> Submission:
    """Enters what has no image yet, by the plan that lies in the output alone: for a Redis that knows the run no more.

    Raises PlanError where there is no plan, and what `submit` raises.
    """
    with load_plan(output.child(run)) as plan:
        return submit(plan, output=output, run=run, client=client)


def retry(
    output: Output, run: str, client: redis.Redis, *, reason: str | None = None, indexes: Sequence[range] = ()
) -> int:
    """Enter a run's failed jobs anew, as if they had never been delivered; return how many.

    With `reason`, those that failed for one with that text in it; with `indexes`, those of these ranges. Raises
    PlanError, LedgerError.
    """
    failed = Ledger(client).failed_indexes(run)
    if reason is not None:
        told = {one.index for one in Ledger(client).failures(run) if reason.casefold() in one.reason.casefold()}
        failed = [index for index in failed if index in told]
    if indexes:
        failed = [index for index in failed if any(index in part for part in indexes)]
    if not failed:
        return 0
    with load_plan(output.child(run)) as plan:
        return JobQueue(client).reenter(run, map(_entry, plan.at(failed)))


def _given_up(ledger: Ledger, run: str) -> dict[bool, list[int]]:
    """The indexes of what was revoked (True), and of what failed for another reason (False)."""
    indexes: dict[bool, list[int]] = {False: [], True: []}
    for failure in ledger.failures(run):
        indexes[failure.reason == REVOKED].append(failure.index)
    return indexes


def done_bits(client: redis.Redis, run: str) -> bytes:
    """A bit an index, the highest of a byte first."""
    answer: Any = client.execute_command("GET", done_key(run), **{NEVER_DECODE: True})
    return bytes(answer or b"")


def set_indexes(bits: bytes) -> Iterator[int]:
    """The indexes of the bits that are set."""
    for number, byte in enumerate(bits):
        if byte:
            yield from (8 * number + bit for bit in range(8) if byte & 0x80 >> bit)


def _entry(job: PlannedJob) -> Entry:
    return job.index, job.shape_key, job.own_json


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Places of the plan that are entered in one step."""

    start: int
    end: int
    entries: list[Entry]
    present: list[int]


class _Entering:
    """A plan on its way into Redis. A thread sends, while the next chunks are prepared."""

    def __init__(
        self,
        plan: Plan,
        run: str,
        client: redis.Redis,
        there: Present,
        max_pending: int | None,
        progress: Callable[[int], None],
    ) -> None:
        self._plan = plan
        self._run = run
        self._client = client
        self._queue = JobQueue(client)
        self._there = there.indexes
        self._max_pending = max_pending
        self._progress = progress
        self._enqueued = 0

    def enter(self, at: int) -> int:
        """Enters all from an index on; how many jobs that put into the queue."""
        with ThreadPoolExecutor(1, "enqueue") as sender:
            while at < self._plan.jobs:
                at = self._enter_from(at, sender)
        return self._enqueued

    def _enter_from(self, at: int, sender: ThreadPoolExecutor) -> int:
        """Until the end, or until another submitter turns out to be further."""
        jobs = self._plan.since(at)
        flying: Future[int] | None = None
        while at < self._plan.jobs:
            chunks = list(self._chunks(jobs, at))
            if flying and flying.result() != at:
                return flying.result()
            self._progress(at)
            at = chunks[-1].end
            flying = sender.submit(self._send, chunks)
            if self._max_pending is not None and flying.result() != at:
                return flying.result()
        if flying:
            at = flying.result()
            self._progress(at)
        return at

    def _chunks(self, jobs: Iterator[PlannedJob], at: int) -> Iterator[_Chunk]:
        """The next trip's."""
        for _ in range(1 if self._max_pending else CHUNKS_A_TRIP):
            taken = list(islice(jobs, self._room()))
            if not taken:
                return
            there = self._there
            missing = [(job[0], job[2], job[3]) for job in taken if job[4] and not there[job[0]]]
            present = [job[0] for job in taken if job[4] and there[job[0]]]
            yield _Chunk(at, at + len(taken), missing, present)
            at += len(taken)

    def _room(self) -> int:
        """How many may be entered; waits until there is room for some."""
        if self._max_pending is None:
            return CHUNK
        enough = min(CHUNK, -(-self._max_pending // 2))
        while (room := self._max_pending - Ledger(self._client).status(self._run).pending) < enough:
            time.sleep(LOOK_EVERY_S)
        return min(CHUNK, room)

    def _send(self, chunks: Sequence[_Chunk]) -> int:
        """How far the run is entered then."""
        with self._client.pipeline(transaction=False) as pipe:
            for chunk in chunks:
                self._queue.enqueue(self._run, chunk.start, chunk.end, chunk.entries, chunk.present, pipe=pipe)
            ends = [entered(self._run, answer) for answer in pipe.execute()]
        self._enqueued += sum(len(chunk.entries) for chunk, end in zip(chunks, ends, strict=True) if end == chunk.end)
        return ends[-1]
