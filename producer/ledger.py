"""The run in Redis: submitted, done, failed.

Keys, all of them per run, so that ten million jobs cost about two megabytes:

    promptmill:runs                  sorted set   run names, scored by their creation (seconds since the epoch)
    promptmill:run:RUN               hash         output, digest, jobs, images, created, common (JSON of the fields that
                                                  all jobs share), enqueued (places of the plan that are in), present
                                                  (images that were there before), done (those included), failed,
                                                  first_done, last_done (seconds since the epoch)
    promptmill:run:RUN:done          bitmap       bit i: the job at place i of the run has its image
    promptmill:run:RUN:failed        bitmap       bit i: the job at place i has failed
    promptmill:run:RUN:failures      hash         place -> reason, as JSON {"id", "reason"}

Bits are those of a job's first place: rows that mean the same job share one image, so `done + failed` ends at `images`,
not at `jobs`. The counts are kept by the scripts of producer.queue, which move a job and its bit in one step.
"""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import redis

from producer.errors import LedgerError
from producer.job import canonical_json

RUNS = "promptmill:runs"


def run_key(run: str) -> str:
    return f"promptmill:run:{run}"


def done_key(run: str) -> str:
    return f"promptmill:run:{run}:done"


def failed_key(run: str) -> str:
    return f"promptmill:run:{run}:failed"


def failures_key(run: str) -> str:
    return f"promptmill:run:{run}:failures"


@dataclass(frozen=True, slots=True)
class RunStatus:
    """Where a run stands. `jobs` counts rows, `images` the distinct ones; times are seconds since the epoch."""

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

    @property
    def left(self) -> int:
        """Images neither there nor failed."""
        return self.images - self.done - self.failed

    @property
    def finished(self) -> bool:
        return self.left <= 0

    @property
    def images_per_s(self) -> float | None:
        """The rate from the first image to the last, or None before there are two."""
        if self.first_done is None or self.last_done is None or self.done < 2 or self.last_done <= self.first_done:
            return None
        return (self.done - 1) / (self.last_done - self.first_done)

    @property
    def eta_s(self) -> float | None:
        """Seconds until the rest is there at the rate so far, or None while there is no rate."""
        return self.left / self.images_per_s if self.images_per_s else None


@dataclass(frozen=True, slots=True)
class Failure:
    """A job that was given up: its place in the run, its id, and why."""

    index: int
    id: str
    reason: str


class Ledger:
    """The runs that a Redis knows."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis: Any = client  # redis-py types every answer as "or awaitable"

    def open(self, run: str, *, output: str, digest: str, jobs: int, images: int, common: Mapping[str, Any]) -> None:
        """Enters a run, or finds it entered already. Raises LedgerError where the name stands for another run."""
        key = run_key(run)
        fields = {
            "output": output,
            "digest": digest,
            "jobs": jobs,
            "images": images,
            "common": canonical_json(common),
        }
        counts = {"enqueued": 0, "present": 0, "done": 0, "failed": 0}
        with self._redis.pipeline(transaction=True) as pipe:
            for name, value in {**fields, **counts, "created": time.time()}.items():
                pipe.hsetnx(key, name, value)
            pipe.zadd(RUNS, {run: time.time()}, nx=True)
            pipe.hmget(key, "output", "digest")
            known_output, known_digest = pipe.execute()[-1]
        if (known_output, known_digest) != (output, digest):
            what = f"at {known_output}" if known_output != output else "with other jobs"
            raise LedgerError(f"run {run!r} is known to this Redis {what}: name this run otherwise with --run")

    def status(self, run: str) -> RunStatus:
        """Raises LedgerError for a run that this Redis does not know."""
        fields = self._redis.hgetall(run_key(run))
        if not fields:
            raise LedgerError(f"no run {run!r} in this Redis; `promptmill status` lists those there are")
        return _status(run, fields)

    def runs(self) -> Iterator[RunStatus]:
        """Every run, the newest first."""
        for run in self._redis.zrevrange(RUNS, 0, -1):
            fields = self._redis.hgetall(run_key(run))
            if fields:
                yield _status(run, fields)

    def settings(self, run: str) -> tuple[str, dict[str, Any]] | None:
        """The run's output and the fields that all its jobs share, or None for an unknown run."""
        output, common = self._redis.hmget(run_key(run), "output", "common")
        return None if output is None else (output, json.loads(common))

    def failures(self, run: str) -> Iterator[Failure]:
        """The run's failed jobs, in no order."""
        for index, text in self._redis.hscan_iter(failures_key(run), count=1000):
            yield Failure(int(index), **json.loads(text))


def _status(run: str, fields: Mapping[str, str]) -> RunStatus:
    first, last = fields.get("first_done"), fields.get("last_done")
    return RunStatus(
        run=run,
        output=fields["output"],
        jobs=int(fields["jobs"]),
        images=int(fields["images"]),
        enqueued=int(fields["enqueued"]),
        present=int(fields["present"]),
        done=int(fields["done"]),
        failed=int(fields["failed"]),
        created=float(fields["created"]),
        first_done=float(first) if first else None,
        last_done=float(last) if last else None,
    )
