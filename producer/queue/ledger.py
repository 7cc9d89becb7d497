"""The run in Redis: submitted, done, failed, cancelled.

All of its keys (keys.py) are per run, so that ten million jobs cost about two megabytes. The run's hash holds output,
digest, jobs, images, created, common (JSON of the fields that all jobs share), encoding (of its images: `png`,
`jpeg:90`), state (running, paused or cancelled),
priority, keep_s, enqueued (indexes of the plan that are in), queued (jobs in streams), present (images that were there
before), done (those included), failed, cut (of those rendered, whose prompt was too long), first_done, last_done
(seconds since the epoch), served_at (microseconds, when one of its jobs was last claimed); and for its rate stopped_s
(seconds between the two in which it stood still), paused_at, going_since (when its last stop ended), bursts (groups of
images that landed together).

Bits are those of a job's first index: rows that mean the same job share one image, so `done + failed` ends at `images`,
not at `jobs`. The counts are kept by the scripts, which move a job and its bit in one step. What is
cancelled is not counted but computed: a worker that held a job when its run was cancelled may still bring the image.

Once nothing more will happen to a run by itself, all of its keys expire together after `keep_s` seconds.
"""

import json
import logging
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import redis
from redis.client import NEVER_DECODE

from promptmill.producer.errors import LedgerError
from promptmill.producer.job import canonical_json
from promptmill.producer.queue.keys import RUNS, failed_key, failures_key, run_key
from promptmill.producer.queue.priorities import PRIORITIES
from promptmill.producer.queue.scripts import Script

logger = logging.getLogger(__name__)

REVOKED = "revoked"
"""The reason of a job that somebody revoked."""

RATE_AFTER_S = 1.0
"""Seconds between a run's first image and its last, before they tell a rate."""

STOP_S = 15.0
STOP_GAPS = 5
"""No image for STOP_S, and for STOP_GAPS times the usual gap: the run stands still. As in scripts/lib.lua."""

MAX_INDEX_DIGITS = 9  # a bit at that index is 120 MB of bitmap, which no run has

KEEP_S = 7 * 24 * 3600
"""For how long Redis knows a run after its end, in seconds."""


@dataclass(frozen=True, slots=True)
class RunStatus:
    """Where a run stands. `jobs` counts rows, `images` the distinct ones; times are seconds since the epoch.

    `state` is running, paused, cancelled or finished; `cancelled` the images that will not be rendered; `pending` the
    jobs that were entered and are not settled: those that wait and those that workers hold; `cut` the images rendered
    of a prompt whose end was cut off. For the rate: `stopped_s` are the seconds between the first image and the last
    in which the run stood still, `idle_s` those since an image landed or a stop ended, and `bursts` the groups of
    images that landed together.
    """

    run: str
    output: str
    jobs: int
    images: int
    enqueued: int
    present: int
    done: int
    failed: int
    created: float
    first_done: float | None
    last_done: float | None
    state: str = "running"
    cancelled: int = 0
    priority: str = "normal"
    pending: int = 0
    keep_s: int = KEEP_S
    truncated: int = 0
    stopped_s: float = 0.0
    bursts: int = 0
    idle_s: float = 0.0

    @property
    def left(self) -> int:
        """Images that are still to come: neither there nor failed nor cancelled."""
        return self.images - self.done - self.failed - self.cancelled

    @property
    def finished(self) -> bool:
        return self.left <= 0

    @property
    def images_per_s(self) -> float | None:
        """The rate from the first rendered image to the last, but for pauses and outages between; None for a guess."""
        rendered = self.done - self.present
        if self.first_done is None or self.last_done is None or rendered < 2:
            return None
        span_s = self.last_done - self.first_done - self.stopped_s
        return (rendered - 1) / span_s if span_s >= RATE_AFTER_S else None

    @property
    def eta_s(self) -> float | None:
        """Seconds until the rest is there at the rate so far; None while there is no rate, or nothing lands."""
        return self.left / self.images_per_s if self.images_per_s and not self.stands_still else None

    @property
    def stands_still(self) -> bool:
        """Whether much more time than usual has gone by since an image landed."""
        if self.first_done is None or self.last_done is None:
            return False
        usual_gap_s = (self.last_done - self.first_done - self.stopped_s) / max(self.bursts - 1, 1)
        return self.idle_s > max(STOP_S, STOP_GAPS * usual_gap_s)


@dataclass(frozen=True, slots=True)
class Failure:
    """A job that was given up: its index in the run, its id, and why."""

    index: int
    id: str
    reason: str


class Ledger:
    """The runs that a Redis knows."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis: Any = client  # redis-py types every answer as "or awaitable"
        self._open = Script(client, "open")
        self._grow = Script(client, "grow")
        self._sweep = Script(client, "sweep")

    def open(
        self,
        run: str,
        *,
        output: str,
        digest: str,
        jobs: int,
        images: int,
        common: Mapping[str, Any],
        priority: str = "normal",
        keep_s: int = KEEP_S,
        encoding: str = "",
    ) -> None:
        """Enters a run, or finds it entered already. A cancelled one begins anew: nothing of it is entered.

        `priority` is that of a run not known before; afterwards `control.set_priority` changes it.
        `keep_s`: 0 keeps the run in Redis for ever. `encoding` is that of its images, '' for PNG. Raises LedgerError
        where the name stands for another run.
        """
        check_priority(priority)
        shared = canonical_json(common)
        known = self._open(run, output, digest, jobs, images, shared, priority, keep_s, encoding)
        if known != [output, digest]:
            raise name_is_taken(run, known[0], output)

    def grow(self, run: str, before: str, *, digest: str, jobs: int, images: int) -> None:
        """The plan of the digest `before` has grown to this one. Does nothing where the run has another by now."""
        self._grow(run, before, digest, jobs, images)

    def digest(self, run: str) -> str | None:
        """That of the run's plan, None for an unknown run."""
        digest: str | None = self._redis.hget(run_key(run), "digest")
        return digest

    def status(self, run: str) -> RunStatus:
        """Raises LedgerError for a run that this Redis does not know, or of which it holds what no run can be."""
        if (status := self._find(run)) is None:
            raise LedgerError(f"no run {run!r} in this Redis; `promptmill status` lists those there are")
        return status

    def runs(self) -> Iterator[RunStatus]:
        """Every run, the newest first. Names whose run has expired are swept; one that cannot be read is warned of."""
        for run in self._redis.zrevrange(RUNS, 0, -1):
            try:
                status = self._find(run)
            except (LedgerError, redis.ResponseError) as error:
                logger.warning("run %r is passed over: %s", run, error)
                continue
            if status:
                yield status
            else:
                self._sweep(run)

    def _find(self, run: str) -> RunStatus | None:
        fields = self._fields(run)
        return _status(run, fields) if fields else None

    def _fields(self, run: str) -> dict[str, str]:
        """What the run's hash says of its state; of what its jobs share it says nothing here."""
        with self._redis.pipeline(transaction=False) as pipe:
            values, (seconds, microseconds) = pipe.hmget(run_key(run), _STATUS_FIELDS).time().execute()
        found = {name: value for name, value in zip(_STATUS_FIELDS, values, strict=True) if value is not None}
        return {**found, "now": f"{seconds}.{microseconds:06}"} if found else {}

    def settings(self, run: str) -> tuple[str, dict[str, Any]] | None:
        """The run's output and the fields that all its jobs share, or None for an unknown run."""
        output, common = self._redis.hmget(run_key(run), "output", "common")
        return None if output is None else (output, json.loads(common))

    def failures(self, run: str) -> Iterator[Failure]:
        """The run's failed jobs, in no order. What is kept under an index that the run has not is passed over."""
        jobs = self._jobs(run)
        for index, text in self._redis.hscan_iter(failures_key(run), count=1000):
            if index.isdecimal() and len(index) <= MAX_INDEX_DIGITS and int(index) < jobs:
                yield _failure(int(index), text)

    def failures_by_reason(self, run: str) -> dict[str, int]:
        """How often each reason was given, the most frequent first."""
        return dict(Counter(failure.reason for failure in self.failures(run)).most_common())

    def failed_indexes(self, run: str) -> list[int]:
        """The indexes of the run's failed jobs, in order."""
        jobs = self._jobs(run)
        if not jobs:
            return []
        last_byte = (jobs - 1) // 8
        bits = self._redis.execute_command("GETRANGE", failed_key(run), 0, last_byte, **{NEVER_DECODE: True})
        found = (8 * some.start() + bit for some in _SOME.finditer(bits) for bit in _set_bits(some[0][0]))
        return [index for index in found if index < jobs]

    def _jobs(self, run: str) -> int:
        status = self._find(run)
        return status.jobs if status else 0


_SOME = re.compile(rb"[^\x00]")


def _set_bits(byte: int) -> Iterator[int]:
    """Redis counts from a byte's highest bit."""
    return (bit for bit in range(8) if byte & (0x80 >> bit))


def name_is_taken(run: str, known: str, output: str) -> LedgerError:
    """What is said of a run's name that stands for another run, at the output that is `known`."""
    what = f"at {known}" if known != output else "with other jobs"
    return LedgerError(f"run {run!r} is known to this Redis {what}: pass another name with --run")


def check_priority(priority: str) -> None:
    """Raises LedgerError."""
    if priority not in PRIORITIES:
        raise LedgerError(f"no priority {priority!r}: expected one of {', '.join(PRIORITIES)}")


_STATUS_FIELDS = (
    *("output", "jobs", "images", "created", "state", "priority", "keep_s", "enqueued", "queued", "present"),
    *("done", "failed", "first_done", "last_done", "cut", "stopped_s", "bursts", "going_since"),
)


def _failure(index: int, text: str) -> Failure:
    """What is kept of a failed job; what else is there, somebody else has written."""
    try:
        said = json.loads(text)
        told = Failure(index, said["id"], said["reason"].encode(errors="backslashreplace").decode())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return Failure(index, "", "the reason that is kept cannot be read")
    return told if isinstance(told.id, str) else Failure(index, "", told.reason)


def _whole(fields: Mapping[str, Any], name: str) -> int:
    number = int(fields[name])
    if not 0 <= number < MOST:
        raise ValueError(f"{name} is {number}")
    return number


def _time(fields: Mapping[str, Any], name: str) -> float | None:
    return _seconds(fields, name) if name in fields else None


def _seconds(fields: Mapping[str, Any], name: str) -> float:
    number = float(fields[name])
    if not math.isfinite(number) or abs(number) > MOST:
        raise ValueError(f"{name} is {number}")
    return number


STATES = ("running", "paused", "cancelled")
"""As the run's hash has them: it is finished when its counts say so."""

MOST = 1 << 50  # of what is counted in runs, and of seconds: more is nothing that promptmill wrote


def _status(run: str, fields: Mapping[str, str]) -> RunStatus:
    """Raises LedgerError."""
    try:
        return _read(run, fields)
    except (KeyError, ValueError) as error:
        what = f"it has no {error}" if isinstance(error, KeyError) else str(error)[:200]
        raise LedgerError(f"run {run!r} in this Redis is nothing that promptmill wrote: {what}") from error


def _one_of(fields: Mapping[str, str], name: str, known: Iterable[str]) -> str:
    if fields[name] not in known:
        raise ValueError(f"{name} is {fields[name]!r}")
    return fields[name]


def _read(run: str, fields: Mapping[str, str]) -> RunStatus:
    first, last, going = (_time(fields, name) for name in ("first_done", "last_done", "going_since"))
    images, done, failed = (_whole(fields, name) for name in ("images", "done", "failed"))
    open_images = max(images - done - failed, 0)
    state = _one_of(fields, "state", STATES) if open_images else "finished"
    return RunStatus(
        run=run,
        output=fields["output"],
        jobs=_whole(fields, "jobs"),
        images=images,
        enqueued=_whole(fields, "enqueued"),
        present=_whole(fields, "present"),
        done=done,
        failed=failed,
        created=_seconds(fields, "created"),
        first_done=first,
        last_done=last,
        state=state,
        cancelled=open_images if state == "cancelled" else 0,
        priority=_one_of(fields, "priority", PRIORITIES),
        pending=int(fields["queued"]),
        keep_s=_whole(fields, "keep_s"),
        truncated=int(fields.get("cut", 0)),
        stopped_s=_time(fields, "stopped_s") or 0.0,
        bursts=int(fields.get("bursts", 0)),
        idle_s=max(float(fields["now"]) - max(last, going or 0.0), 0.0) if last else 0.0,
    )
