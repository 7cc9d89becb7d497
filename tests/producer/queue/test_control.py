"""Run control, on a real Redis: what workers hold meanwhile is the hard part."""

from collections.abc import Callable

import pytest
import redis

from promptmill.producer.errors import LedgerError
from promptmill.producer.job import Job
from promptmill.producer.queue.control import cancel, pause, purge, set_priority, unpause
from promptmill.producer.queue.keys import queue_key
from promptmill.producer.queue.ledger import Ledger
from promptmill.producer.queue.priorities import PRIORITIES
from promptmill.producer.queue.queue import JobQueue
from tests.entries import as_entries, indexes_in

JOBS = [Job(prompt=f"{n}", width=64, height=64) for n in range(40)]
SHAPE = JOBS[0].shape

Enter = Callable[..., None]


@pytest.fixture
def queue(client: redis.Redis) -> JobQueue:
    return JobQueue(client, "w", lease_s=60)


@pytest.fixture
def ledger(client: redis.Redis) -> Ledger:
    return Ledger(client)


@pytest.fixture
def enter(ledger: Ledger, queue: JobQueue) -> Enter:
    def enter(run: str, count: int = 8, priority: str = "normal", digest: str = "d", start: int = 0) -> None:
        ledger.open(run, output="/out", digest=digest, jobs=count, images=count, common={}, priority=priority)
        queue.enqueue(run, start, count, as_entries(list(enumerate(JOBS))[start:count]))

    return enter


def served(queue: JobQueue, count: int, batch: int = 4) -> list[str]:
    return [claim.run for _ in range(count) for claim in queue.claim(SHAPE, batch)]


def keys_of(client: redis.Redis, run: str) -> list[str]:
    return sorted(key for key in client.scan_iter("promptmill:*") if run in key)


@pytest.mark.parametrize(
    "act",
    [cancel, pause, unpause, purge, lambda client, run: set_priority(client, run, "low")],
    ids=["cancel", "pause", "unpause", "purge", "priority"],
)
def test_an_unknown_run_is_told_and_nothing_is_made(client, act):
    with pytest.raises(LedgerError, match="no run 'x' in this Redis"):
        act(client, "x")
    assert client.keys("*") == []


# --- cancel


def test_a_cancelled_run_has_nothing_in_line_and_others_have(client, enter, queue, ledger):
    enter("r")
    enter("other")
    assert cancel(client, "r") == 8
    status = ledger.status("r")
    assert (status.state, status.cancelled, status.left, status.pending, status.finished) == (
        "cancelled",
        8,
        0,
        0,
        True,
    )
    assert client.exists(queue_key("r", SHAPE)) == 0
    assert set(served(queue, 4)) == {"other"}
    assert cancel(client, "r") == 8, "again is the same"


def test_what_workers_hold_when_their_run_is_cancelled_may_land_and_counts_once(client, enter, queue, ledger):
    enter("r")
    done, failed, released, settled = queue.claim(SHAPE, 4)
    assert queue.done(settled)
    assert cancel(client, "r") == 7
    assert queue.renew([done, failed, released]) == []
    queue.release([released], counted=True)
    assert queue.done(done)
    assert not queue.done(done)
    assert queue.failed(failed, "no")
    status = ledger.status("r")
    assert (status.done, status.failed, status.cancelled, status.left, status.pending) == (2, 1, 5, 0, 0)
    assert status.state == "cancelled"
    assert client.keys("promptmill:queue:*") == client.keys("promptmill:turns:*") == []
    assert all(client.ttl(key) > 0 for key in client.scan_iter("promptmill:run:*")), "what came late expires as well"


def test_a_cancelled_run_whose_last_image_lands_is_finished(client, enter, queue, ledger):
    enter("r", 2)
    claims = queue.claim(SHAPE, 2)
    cancel(client, "r")
    for claim in claims:
        queue.done(claim)
    assert (ledger.status("r").state, ledger.status("r").cancelled) == ("finished", 0)


def test_a_finished_run_is_not_cancelled(client, enter, queue, ledger):
    enter("r", 2)
    for claim in queue.claim(SHAPE, 2):
        queue.done(claim)
    assert cancel(client, "r") == 0
    assert ledger.status("r").state == "finished"


def test_a_submitter_cannot_go_on_with_a_cancelled_run_and_an_open_begins_it_anew(client, enter, queue, ledger):
    enter("r", 20)
    held = queue.claim(SHAPE, 4)
    queue.failed(held[3], "no")
    cancel(client, "r")
    entries = as_entries(enumerate(JOBS))
    for act in (lambda: queue.enqueue("r", 20, 40, entries[20:]), lambda: queue.reenter("r", entries[3:4])):
        with pytest.raises(LedgerError, match="run 'r' was cancelled; `promptmill resume r --output URL`"):
            act()
    assert client.keys("promptmill:queue:*") == []
    queue.done(held[0])
    ledger.open("r", output="/out", digest="d", jobs=20, images=20, common={})
    assert (ledger.status("r").enqueued, ledger.status("r").done, ledger.status("r").failed) == (0, 0, 0)
    assert queue.done(held[1]), "late, and between the listing of the output and what follows from it"
    assert queue.enqueue("r", 0, 20, entries[1:20], present=[0]) == 20
    assert ledger.status("r").pending == 18, "neither what was there nor what came late"
    assert not queue.done(held[2]), "later still: its job waits anew, and whoever takes it finds the image"
    while claims := queue.claim(SHAPE, 8):
        for claim in claims:
            queue.done(claim)
    status = ledger.status("r")
    assert (status.done, status.failed, status.pending, status.state) == (20, 0, 0, "finished")


def test_a_late_image_of_a_run_entered_anew_that_is_lost_again_waits_once(client, enter, queue, ledger):
    """Found by test_queue_machine: the job waited under two entries."""
    enter("r", 4)
    (late, *_) = queue.claim(SHAPE, 1)
    cancel(client, "r")
    ledger.open("r", output="/out", digest="d", jobs=4, images=4, common={})
    entries = as_entries(enumerate(JOBS))[:4]
    queue.enqueue("r", 0, 4, entries)
    queue.done(late)
    listed_as_done = [entry for entry in entries if client.getbit("promptmill:run:r:done", entry[0])]
    queue.reenter("r", listed_as_done)  # as submit does where it finds no image of them any more
    assert sorted(indexes_in(client, f"promptmill:queue:r:{SHAPE.key}")) == [0, 1, 2, 3]
    assert ledger.status("r").pending == 4


def test_a_late_settle_takes_nothing_out_of_the_stream_that_was_filled_anew(client, enter, queue, ledger):
    """Though Redis' clock goes back, and numbers are given twice."""
    enter("r", 2)
    first, _ = queue.claim(SHAPE, 2)
    cancel(client, "r")
    ledger.open("r", output="/out", digest="d", jobs=2, images=2, common={})
    queue.enqueue("r", 0, 1, [], present=[])
    client.xgroup_create(queue_key("r", SHAPE), "workers", "0", mkstream=True)
    client.xadd(queue_key("r", SHAPE), {"i": 1, "job": "{}"}, id=first.entry)
    queue.done(first)
    assert client.xlen(queue_key("r", SHAPE)) == 1


# --- pause


def test_a_paused_run_gives_nothing_out_and_what_is_held_finishes(client, enter, queue, ledger):
    enter("r", 8)
    held = queue.claim(SHAPE, 4)
    pause(client, "r")
    assert ledger.status("r").state == "paused"
    assert (queue.claimable(), queue.claim(SHAPE, 8)) == ([], [])
    assert queue.backlog() == {SHAPE: (4, 4)}
    for claim in held:
        assert queue.done(claim)
    assert (ledger.status("r").done, ledger.status("r").left) == (4, 4)
    unpause(client, "r")
    assert ledger.status("r").state == "running"
    assert [claim.index for claim in queue.claim(SHAPE, 8)] == [4, 5, 6, 7]


def test_jobs_entered_while_a_run_is_paused_wait_too(client, ledger, enter, queue):
    ledger.open("r", output="/out", digest="d", jobs=4, images=4, common={})
    pause(client, "r")
    enter("r", 4)
    assert queue.claimable() == []
    set_priority(client, "r", "urgent")
    assert queue.claimable() == []
    unpause(client, "r")
    (ready,) = queue.claimable()
    assert ready.priority == PRIORITIES["urgent"]


def test_a_paused_run_that_finishes_is_finished_and_cannot_be_paused(client, enter, queue, ledger):
    enter("r", 1)
    (claim,) = queue.claim(SHAPE, 1)
    pause(client, "r")
    queue.done(claim)
    assert ledger.status("r").state == "finished"
    pause(client, "r")
    assert ledger.status("r").state == "finished"


def test_a_pause_does_not_wake_the_cancelled_nor_does_its_end(client, enter, queue, ledger):
    enter("r")
    cancel(client, "r")
    pause(client, "r")
    assert ledger.status("r").state == "cancelled"
    unpause(client, "r")
    assert ledger.status("r").state == "cancelled"


def test_a_pause_is_not_made_up_for(client, enter, queue):
    enter("r", 40)
    enter("other", 40)
    pause(client, "r")
    served(queue, 5)
    unpause(client, "r")
    assert 8 <= served(queue, 6).count("r") <= 16


def test_a_second_resume_changes_no_turn(client, enter, queue):
    """Who says it again and again is not served again and again."""
    enter("r", 40)
    enter("other", 40)
    runs = []
    for _ in range(8):
        unpause(client, "r")
        runs += served(queue, 1)
    assert abs(runs.count("r") - runs.count("other")) <= 4


# --- priority


def test_a_priority_holds_from_the_next_batch_on(client, enter, queue, ledger):
    enter("r", 40)
    enter("other", 40)
    set_priority(client, "r", "urgent")
    assert set(served(queue, 3)) == {"r"}
    set_priority(client, "r", "low")
    assert set(served(queue, 3)) == {"other"}
    assert ledger.status("r").priority == "low"
    with pytest.raises(LedgerError, match="no priority 'high'"):
        set_priority(client, "r", "high")


# --- purge


def test_purge_takes_every_key_and_nothing_that_comes_late_brings_one_back(client, enter, queue, ledger):
    enter("r")
    enter("other")
    claims = [claim for claim in queue.claim(SHAPE, 16) if claim.run == "r"]
    queue.done(claims[0])
    queue.failed(claims[1], "no")
    with pytest.raises(LedgerError, match="run 'r' is not finished"):
        purge(client, "r")
    assert ledger.status("r").done == 1
    purge(client, "r", force=True)
    assert not queue.done(claims[2])
    assert not queue.failed(claims[3], "no")
    queue.release(claims[4:6])
    assert queue.renew(claims[6:]) == []
    with pytest.raises(LedgerError, match="not in this Redis any more"):
        queue.enqueue("r", 8, 8, [])
    queue.leave()
    assert keys_of(client, "run:r") == keys_of(client, ":r:") == []
    assert [status.run for status in ledger.runs()] == ["other"]
    assert ledger.status("other").left == 8


@pytest.mark.parametrize("end", ["finished", "cancelled"])
def test_a_run_that_is_over_is_purged_without_force(client, enter, queue, end):
    enter("r", 2)
    if end == "cancelled":
        cancel(client, "r")
    for claim in queue.claim(SHAPE, 2):
        queue.done(claim)
    purge(client, "r")
    assert client.keys("*") == []


def test_a_claim_of_a_purged_run_settles_nothing_of_another_of_its_name(client, enter, queue, ledger):
    """Place 0 of the new run is another job."""
    enter("r")
    (claim, failing, *_) = queue.claim(SHAPE, 8)
    purge(client, "r", force=True)
    enter("r", 8, digest="another")
    assert not queue.done(claim)
    assert not queue.failed(failing, "no")
    status = ledger.status("r")
    assert (status.done, status.failed, status.pending) == (0, 0, 8)
    assert len(queue.claim(SHAPE, 8)) == 8
