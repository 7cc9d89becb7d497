"""Anything in any order, by several workers and people: the counts are the bits, and no job is lost or doubled.

Hypothesis makes up stories of submitters, workers, dead workers, cancels, pauses, purges and resumes, and after each
step compares all that Redis holds with what it must hold.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from promptmill.producer.errors import LedgerError
from promptmill.producer.job import Job
from promptmill.producer.queue.control import cancel, pause, purge, set_priority, unpause
from promptmill.producer.queue.keys import done_key, failures_key, run_key
from promptmill.producer.queue.ledger import Ledger
from promptmill.producer.queue.priorities import PRIORITIES
from promptmill.producer.queue.queue import Claim, JobQueue
from tests.entries import as_entries, indexes_in

RUNS = ["one", "two", "three"]
JOBS = [Job(prompt=f"{n}", seed=n, width=64 * (1 + n % 2), height=64) for n in range(9)]
SHAPES = sorted({job.shape for job in JOBS}, key=lambda shape: shape.key)
ENTRIES = as_entries(enumerate(JOBS))

runs = st.sampled_from(RUNS)
workers = st.sampled_from(["a", "b", "c"])


class Mill(RuleBasedStateMachine):
    """The queue, and a memory of which images are in the output: what a worker brings there stays."""

    client: redis.Redis
    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.client.flushall()
        self.ledger = Ledger(self.client)
        self.images: dict[str, set[int]] = {run: set() for run in RUNS}
        self.entered_once: set[str] = set()

    def queue(self, name: str) -> JobQueue:
        return JobQueue(self.client, name, lease_s=3600)

    # People.

    @rule(run=runs, priority=st.sampled_from(list(PRIORITIES)), chunk=st.integers(1, 9), chunks=st.integers(1, 9))
    def submit(self, run: str, priority: str, chunk: int, chunks: int) -> None:
        """As promptmill.producer.submit does; after `chunks` calls the submitter is killed."""
        self.ledger.open(run, output="/out", digest="d", jobs=9, images=9, common={}, priority=priority)
        there = self.images[run]
        before = at = self.ledger.status(run).enqueued
        for _ in range(chunks):
            end = min(at + chunk, 9)
            if at == end:
                break
            missing = [entry for entry in ENTRIES[at:end] if entry[0] not in there]
            at = self.queue("p").enqueue(run, at, end, missing, [index for index in range(at, end) if index in there])
        self.queue("p").reenter(
            run, [entry for entry in ENTRIES[:before] if self.is_done(run, entry[0]) and entry[0] not in there]
        )

    @rule(run=runs, index=st.integers(0, 8))
    def lose_an_image(self, run: str, index: int) -> None:
        self.images[run].discard(index)

    @rule(run=runs)
    def retry(self, run: str) -> None:
        indexes = self.ledger.failed_indexes(run)
        try:
            assert self.queue("p").reenter(run, [ENTRIES[index] for index in indexes]) == len(indexes)
        except LedgerError:
            assert self.state(run) in ("unknown", "cancelled")

    @rule(run=runs, act=st.sampled_from([cancel, pause, unpause]))
    def command(self, run: str, act) -> None:
        try:
            act(self.client, run)
        except LedgerError:
            assert self.state(run) == "unknown"

    @rule(run=runs, priority=st.sampled_from(list(PRIORITIES)))
    def prioritize(self, run: str, priority: str) -> None:
        if self.state(run) != "unknown":
            set_priority(self.client, run, priority)

    @rule(run=runs, force=st.booleans())
    def purge(self, run: str, force: bool) -> None:
        state = self.state(run)
        try:
            purge(self.client, run, force=force)
        except LedgerError:
            assert state == "unknown" or (state in ("running", "paused") and not force)

    # Workers.

    @rule(target=held, worker=workers, shape=st.sampled_from(SHAPES), count=st.integers(1, 5))
    def claim(self, worker: str, shape, count: int):
        ready = {one.shape: one for one in self.queue(worker).claimable()}
        claims = self.queue(worker).claim(shape, count)
        assert not claims or shape in ready
        assert len(claims) == 1 or not any(claim.last_chance for claim in claims)
        assert len(claims) <= count
        assert all(claim.job == JOBS[claim.index] for claim in claims)
        return multiple(*((worker, claim) for claim in claims))

    @rule(run=runs)
    def leases_run_out(self, run: str) -> None:
        """An hour and more in which nobody renewed what is held of the run."""
        for name in self.streams(run):
            shape = name.removeprefix(f"promptmill:queue:{run}:")
            for pending in self.client.xpending_range(name, "workers", "-", "+", 100):
                entry: Any = pending  # the values of its keys are of as many types
                tries: Any = {"idle": 4_000_000, "retrycount": entry["times_delivered"], "justid": True}
                self.client.xclaim(name, "workers", entry["consumer"], 0, [entry["message_id"]], **tries)
            self.client.zadd(f"promptmill:held:{shape}", {run: 0}, xx=True)

    @rule(one=consumes(held), again=st.booleans())
    def done(self, one: tuple[str, Claim], again: bool) -> None:
        worker, claim = one
        self.images[claim.run].add(claim.index)
        self.queue(worker).done(claim)
        if again:
            assert not self.queue(worker).done(claim)

    @rule(one=consumes(held))
    def failed(self, one: tuple[str, Claim]) -> None:
        worker, claim = one
        self.queue(worker).failed(claim, "no luck")

    @rule(one=consumes(held), counted=st.booleans(), later=st.booleans())
    def release(self, one: tuple[str, Claim], counted: bool, later: bool) -> None:
        worker, claim = one
        self.queue(worker).release([claim], counted=counted, later=later)

    @rule(one=held)
    def renew(self, one: tuple[str, Claim]) -> None:
        worker, claim = one
        assert self.queue(worker).renew([claim]) in ([], [claim])

    @rule(worker=workers)
    def leave(self, worker: str) -> None:
        self.queue(worker).leave()

    # What holds at any moment.

    @invariant()
    def counts_are_bits(self) -> None:
        for run in RUNS:
            if self.state(run) == "unknown":
                assert not [key for key in self.client.scan_iter("*") if f":{run}" in key], "purged is purged"
                continue
            status, done, failed = (
                self.ledger.status(run),
                self.client.bitcount(done_key(run)),
                self.ledger.failed_indexes(run),
            )
            assert (status.done, status.failed) == (done, len(failed))
            assert sorted(map(int, self.client.hkeys(failures_key(run)))) == failed
            assert not any(self.is_done(run, index) for index in failed)
            assert status.left >= 0
            assert (status.state == "cancelled") == (status.cancelled > 0)

    @invariant()
    def each_job_is_settled_or_waits(self) -> None:
        for run in RUNS:
            if self.state(run) not in ("running", "paused"):
                assert not self.streams(run)
                continue
            status, failed = self.ledger.status(run), self.ledger.failed_indexes(run)
            waiting = [index for name in self.streams(run) for index in indexes_in(self.client, name)]
            assert len(waiting) == len(set(waiting)) == status.pending
            for index in range(status.enqueued):
                assert index in waiting or index in failed or self.is_done(run, index), "a job is lost"

    @invariant()
    def streams_are_in_line(self) -> None:
        found = {
            (name.split(":")[2], ":".join(name.split(":")[3:])) for name in self.client.scan_iter("promptmill:queue:*")
        }
        lined, held = self.members("turns"), self.members("held")
        assert set(lined).isdisjoint(held)
        assert found == {*lined, *held}
        assert {shape for _, shape in found} == self.client.smembers("promptmill:shapes")
        for (run, _), score in lined.items():
            rank = 3 if self.state(run) == "paused" else 2 - PRIORITIES[self.ledger.status(run).priority]
            assert rank * 1e14 <= score < (rank + 1) * 1e14
        for run, shape in held:
            name = f"promptmill:queue:{run}:{shape}"
            assert self.client.xpending(name, "workers")["pending"] == self.client.xlen(name), "a job nobody looks for"

    @invariant()
    def what_is_over_expires_and_nothing_else(self) -> None:
        for run in RUNS:
            over = self.state(run) in ("finished", "cancelled")
            for key in self.client.scan_iter(f"promptmill:run:{run}*"):
                assert (self.client.ttl(key) > 0) == over, key

    def members(self, kind: str) -> dict[tuple[str, str], float]:
        """Of the sorted sets of this kind: the score of each run and shape."""
        names = list(self.client.scan_iter(f"promptmill:{kind}:*"))
        scores: dict[str, Any] = {name: self.client.zrange(name, 0, -1, withscores=True) for name in names}
        return {(run, name.removeprefix(f"promptmill:{kind}:")): score for name in names for run, score in scores[name]}

    def state(self, run: str) -> str:
        return self.ledger.status(run).state if self.client.exists(run_key(run)) else "unknown"

    def is_done(self, run: str, index: int) -> bool:
        return bool(self.client.getbit(done_key(run), index))

    def streams(self, run: str) -> list[str]:
        return list(self.client.scan_iter(f"promptmill:queue:{run}:*"))


@pytest.fixture
def mill(client: redis.Redis) -> Iterator[type[Mill]]:
    Mill.client = client
    yield Mill


STORIES = settings(max_examples=15, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck))


def test_no_story_loses_or_doubles_a_job(mill):
    run_state_machine_as_test(mill, settings=STORIES)


@pytest.mark.slow
def test_none_of_many_long_stories_does_either(mill):
    run_state_machine_as_test(mill, settings=settings(STORIES, max_examples=100, stateful_step_count=60))
