"""The queue's promises, on a real Redis."""

import time
from collections.abc import Callable

import pytest
import redis

from producer.errors import LedgerError
from producer.job import Job
from producer.ledger import Ledger, run_key
from producer.plan import common_fields
from producer.queue import MAX_DELIVERIES, Claim, JobQueue, queue_key

LEASE_S = 0.2


def some_jobs(count: int, **fields: object) -> list[Job]:
    return [Job(prompt=f"picture {n}", seed=n, width=64, height=64, **fields) for n in range(count)]  # type: ignore[arg-type]


@pytest.fixture
def enter(client: redis.Redis) -> Callable[..., JobQueue]:
    def enter(jobs: list[Job], run: str = "r", present: tuple[int, ...] = ()) -> JobQueue:
        common = common_fields(jobs)
        Ledger(client).open(run, output="/out", digest="d", jobs=len(jobs), images=len(jobs), common=common)
        queue = JobQueue(client)
        missing = [(index, job) for index, job in enumerate(jobs) if index not in present]
        assert queue.enqueue(run, 0, len(jobs), missing, present) == len(jobs)
        return queue

    return enter


@pytest.fixture
def worker(client: redis.Redis) -> Callable[[str], JobQueue]:
    return lambda name: JobQueue(client, name, lease_s=LEASE_S)


def let_leases_run_out() -> None:
    time.sleep(LEASE_S * 1.5)  # the lease is Redis' own clock; there is nothing to await


def indices(claims: list[Claim]) -> list[int]:
    return [claim.index for claim in claims]


def test_jobs_come_out_as_they_went_in(enter, worker):
    jobs = some_jobs(5)
    enter(jobs)
    claims = worker("a").claim(jobs[0].shape, 3)
    assert [claim.job for claim in claims] == jobs[:3]
    assert indices(claims) == [0, 1, 2]
    assert {claim.output for claim in claims} == {"/out"}


def test_a_held_job_is_nobody_elses(enter, worker):
    jobs = some_jobs(4)
    enter(jobs)
    assert indices(worker("a").claim(jobs[0].shape, 2)) == [0, 1]
    assert indices(worker("b").claim(jobs[0].shape, 8)) == [2, 3]
    assert worker("c").claim(jobs[0].shape, 8) == []
    assert worker("c").claimable() == []


def test_jobs_of_two_shapes_wait_in_two_streams(enter, worker):
    small, wide = some_jobs(1)[0], Job(prompt="wide", width=128, height=64)
    enter([small, wide])
    queue = worker("a")
    assert set(queue.claimable()) == {small.shape, wide.shape}
    assert [claim.job for claim in queue.claim(wide.shape, 8)] == [wide]


def test_what_a_dead_worker_held_is_claimed_by_another(enter, worker):
    jobs = some_jobs(3)
    enter(jobs)
    worker("dead").claim(jobs[0].shape, 2)
    let_leases_run_out()
    assert worker("b").claimable() == [jobs[0].shape]
    claims = worker("b").claim(jobs[0].shape, 8)
    assert indices(claims) == [0, 1, 2]
    assert [claim.deliveries for claim in claims] == [2, 2, 1]


def test_a_renewed_lease_keeps_the_job_and_a_lost_one_is_told(enter, worker):
    jobs = some_jobs(2)
    enter(jobs)
    slow = worker("slow")
    kept, lost = slow.claim(jobs[0].shape, 2)
    for _ in range(4):
        time.sleep(LEASE_S / 2)
        assert slow.renew([kept]) == []
    assert indices(worker("b").claim(jobs[0].shape, 8)) == [lost.index]
    assert slow.renew([kept, lost]) == [lost]


def test_a_settled_job_leaves_its_stream_and_is_counted_once(client, enter, worker):
    jobs = some_jobs(2)
    enter(jobs)
    a, b = worker("a"), worker("b")
    first, second = a.claim(jobs[0].shape, 2)
    let_leases_run_out()
    again = b.claim(jobs[0].shape, 1)[0]
    assert again.index == first.index
    assert b.done(again)
    assert not a.done(first), "the slow worker's image is the same one"
    assert a.failed(second, "refused")
    status = Ledger(client).status("r")
    assert (status.done, status.failed, status.finished) == (1, 1, True)
    assert client.xlen(queue_key(jobs[0].shape)) == 0
    (failure,) = Ledger(client).failures("r")
    assert (failure.index, failure.id, failure.reason) == (1, jobs[1].id, "refused")


def test_a_failed_job_that_turns_out_done_is_done(client, enter, worker):
    jobs = some_jobs(1)
    enter(jobs)
    (claim,) = worker("a").claim(jobs[0].shape, 1)
    worker("a").failed(claim, "too slow")
    worker("b").done(claim)
    status = Ledger(client).status("r")
    assert (status.done, status.failed) == (1, 0)
    assert list(Ledger(client).failures("r")) == []


def test_a_released_job_is_claimable_at_once_and_the_delivery_is_not_counted(enter, worker):
    jobs = some_jobs(2)
    enter(jobs)
    a = worker("a")
    for _ in range(MAX_DELIVERIES + 2):
        claims = a.claim(jobs[0].shape, 2)
        assert [claim.deliveries for claim in claims] == [1, 1]
        a.release(claims)
    claims = a.claim(jobs[0].shape, 2)
    a.release(claims, counted=True)
    assert [claim.deliveries for claim in worker("b").claim(jobs[0].shape, 2)] == [2, 2]


def test_one_cannot_release_what_another_holds(enter, worker):
    jobs = some_jobs(1)
    enter(jobs)
    stale = worker("a").claim(jobs[0].shape, 1)
    let_leases_run_out()
    assert indices(worker("b").claim(jobs[0].shape, 1)) == [0]
    worker("a").release(stale)
    assert worker("c").claim(jobs[0].shape, 1) == []


def test_the_killer_is_given_up_and_its_neighbours_are_not(client, enter, worker):
    """Place 1 kills every worker that renders it, and all that the worker holds dies with it."""
    jobs = some_jobs(4)
    enter(jobs)
    for life in range(20):
        queue = worker(f"life {life}")
        claims = queue.claim(jobs[0].shape, 4)
        assert not any(claim.last_chance for claim in claims) or len(claims) == 1
        if 1 in indices(claims):
            let_leases_run_out()
            continue
        for claim in claims:
            queue.done(claim)
        if not queue.claimable():
            break
    status = Ledger(client).status("r")
    assert (status.done, status.failed) == (3, 1)
    (failure,) = Ledger(client).failures("r")
    assert failure.index == 1
    assert "3 workers" in failure.reason


def test_places_are_entered_once_whoever_tries_again(client, enter):
    jobs = some_jobs(6)
    queue = enter(jobs)
    assert queue.enqueue("r", 0, 3, list(enumerate(jobs[:3]))) == 6
    assert client.xlen(queue_key(jobs[0].shape)) == 6


def test_what_is_in_the_output_is_counted_and_not_entered(client, enter):
    jobs = some_jobs(5)
    enter(jobs, present=(1, 3))
    status = Ledger(client).status("r")
    assert (status.done, status.present, status.left) == (2, 2, 3)
    assert client.xlen(queue_key(jobs[0].shape)) == 3


def test_what_all_jobs_share_is_not_in_every_message(client, enter):
    jobs = some_jobs(3, negative_prompt="blurry")
    enter(jobs)
    (_, fields), *_ = client.xrange(queue_key(jobs[0].shape))
    assert fields["job"] == '{"prompt":"picture 0","seed":0}'


def test_a_job_whose_run_was_taken_out_is_dropped(client, enter, worker):
    jobs = some_jobs(1)
    enter(jobs)
    client.delete(run_key("r"))
    assert worker("a").claim(jobs[0].shape, 1) == []
    assert client.xlen(queue_key(jobs[0].shape)) == 0
    assert client.exists(run_key("r")) == 0


def test_a_job_that_cannot_be_read_is_failed_and_its_neighbours_are_claimed(client, enter, worker):
    jobs = some_jobs(1)
    enter(jobs)
    client.xadd(queue_key(jobs[0].shape), {"run": "r", "i": 7, "job": '{"prompt":"x","from_the_future":1}'})
    assert indices(worker("a").claim(jobs[0].shape, 8)) == [0]
    (failure,) = Ledger(client).failures("r")
    assert failure.index == 7
    assert "from_the_future" in failure.reason


def test_a_sleeper_does_not_take_back_its_own_but_others_do(enter, worker):
    jobs = some_jobs(2)
    enter(jobs)
    a = worker("a")
    a.claim(jobs[0].shape, 2)
    let_leases_run_out()
    assert a.claim(jobs[0].shape, 2) == []
    assert indices(worker("b").claim(jobs[0].shape, 2)) == [0, 1]


def test_a_job_whose_image_was_deleted_is_entered_anew_and_counted_once(client, enter, worker):
    jobs = some_jobs(2)
    queue = enter(jobs)
    a = worker("a")
    for claim in a.claim(jobs[0].shape, 2):
        a.done(claim)
    assert queue.reenter("r", [(1, jobs[1])]) == 1
    assert queue.reenter("r", [(1, jobs[1])]) == 0, "it waits already"
    assert Ledger(client).status("r").done == 1
    (claim,) = a.claim(jobs[0].shape, 2)
    assert claim.job == jobs[1]
    a.done(claim)
    assert Ledger(client).status("r").done == 2


def test_one_name_for_two_runs_is_refused(client, enter):
    enter(some_jobs(1))
    with pytest.raises(LedgerError, match="--run"):
        Ledger(client).open("r", output="/elsewhere", digest="d", jobs=1, images=1, common={})


def test_a_clean_leave_takes_the_consumer_out_unless_it_holds_something(client, enter, worker):
    jobs = some_jobs(1)
    enter(jobs)
    a = worker("a")
    claims = a.claim(jobs[0].shape, 1)
    a.leave()
    assert [c["name"] for c in client.xinfo_consumers(queue_key(jobs[0].shape), "workers")] == ["a"]
    a.done(claims[0])
    a.leave()
    assert client.xinfo_consumers(queue_key(jobs[0].shape), "workers") == []
