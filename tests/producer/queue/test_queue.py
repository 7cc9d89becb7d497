"""The queue's promises, on a real Redis."""

import time

import pytest

from promptmill.producer.errors import LedgerError
from promptmill.producer.job import Job, canonical_json
from promptmill.producer.queue.control import cancel
from promptmill.producer.queue.keys import queue_key, run_key
from promptmill.producer.queue.ledger import Ledger
from promptmill.producer.queue.queue import CHUNK, MAX_DELIVERIES, JobQueue
from tests.entries import as_entries, shared_fields
from tests.producer.queue.claiming import LEASE_S, indices, let_leases_run_out, shapes, some_jobs


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
    assert set(shapes(queue.claimable())) == {small.shape, wide.shape}
    assert [claim.job for claim in queue.claim(wide.shape, 8)] == [wide]


def test_what_a_dead_worker_held_is_claimed_by_another(enter, worker):
    jobs = some_jobs(3)
    enter(jobs)
    worker("dead").claim(jobs[0].shape, 2)
    let_leases_run_out()
    assert shapes(worker("b").claimable()) == [jobs[0].shape]
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
    assert client.exists(queue_key("r", jobs[0].shape)) == 0
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


def test_a_job_that_is_released_for_later_is_claimable_after_a_lease(enter, worker):
    jobs = some_jobs(2)
    enter(jobs)
    a, b = worker("a"), worker("b")
    a.release(a.claim(jobs[0].shape, 1), later=True)
    assert indices(b.claim(jobs[0].shape, 2)) == [1]
    assert b.claimable() == []
    let_leases_run_out()
    assert [claim.deliveries for claim in worker("c").claim(jobs[0].shape, 1)] == [1]


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
    assert queue.enqueue("r", 0, 3, as_entries(enumerate(jobs[:3]))) == 6
    assert client.xlen(queue_key("r", jobs[0].shape)) == 6


def test_what_is_in_the_output_is_counted_and_not_entered(client, enter):
    jobs = some_jobs(5)
    enter(jobs, present=(1, 3))
    status = Ledger(client).status("r")
    assert (status.done, status.present, status.left) == (2, 2, 3)
    assert client.xlen(queue_key("r", jobs[0].shape)) == 3


def test_what_all_jobs_share_is_not_in_every_message(client, enter):
    jobs = some_jobs(3, negative_prompt="blurry")
    enter(jobs)
    (_, fields), *_ = client.xrange(queue_key("r", jobs[0].shape))
    assert fields["job"] == '{"prompt":"image 0","seed":0}'


def test_a_job_whose_run_was_taken_out_is_dropped(client, enter, worker):
    jobs = some_jobs(1)
    enter(jobs)
    client.delete(run_key("r"))
    assert worker("a").claim(jobs[0].shape, 1) == []
    assert client.xlen(queue_key("r", jobs[0].shape)) == 0
    assert client.exists(run_key("r")) == 0


def test_a_job_that_cannot_be_read_is_failed_and_its_neighbours_are_claimed(client, enter, worker):
    jobs = some_jobs(1)
    enter(jobs)
    client.hset(run_key("r"), "jobs", 8)
    client.xadd(queue_key("r", jobs[0].shape), {"i": 7, "job": '{"prompt":"x","from_the_future":1}'})
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
    assert queue.reenter("r", as_entries([(1, jobs[1])])) == 1
    assert queue.reenter("r", as_entries([(1, jobs[1])])) == 0, "it waits already"
    assert Ledger(client).status("r").done == 1
    (claim,) = a.claim(jobs[0].shape, 2)
    assert claim.job == jobs[1]
    a.done(claim)
    assert Ledger(client).status("r").done == 2


def test_one_name_for_two_runs_is_refused(client, enter):
    enter(some_jobs(1))
    with pytest.raises(LedgerError, match="--run"):
        Ledger(client).open("r", output="/elsewhere", digest="d", jobs=1, images=1, common={})


def test_a_leave_gives_back_all_and_takes_the_consumer_out(client, enter, worker):
    jobs = some_jobs(2)
    enter(jobs)
    a = worker("a")
    first, _ = a.claim(jobs[0].shape, 2)
    a.done(first)
    a.leave()
    assert [c["name"] for c in client.xinfo_consumers(queue_key("r", jobs[0].shape), "workers")] == ["released"]
    (second,) = worker("b").claim(jobs[0].shape, 2)
    assert (second.index, second.deliveries) == (1, 1)


def test_jobs_claimed_by_a_worker_that_does_not_know_of_them_are_given_back(enter, worker):
    jobs = [*some_jobs(4), *some_jobs(2, guidance_scale=1.0)]
    enter(jobs)
    a, b = worker("a"), worker("b")
    (held,) = a.claim(jobs[0].shape, 1)
    a.claim(jobs[0].shape, 2)  # the answer to this one is lost
    a.claim(jobs[4].shape, 1)  # and to this one
    (other,) = b.claim(jobs[0].shape, 1)
    assert a.release_all_but([held]) == 3
    assert a.release_all_but([held]) == 0
    assert [(claim.index, claim.deliveries) for claim in worker("c").claim(jobs[0].shape, 9)] == [(1, 1), (2, 1)]
    assert indices(worker("c").claim(jobs[4].shape, 9)) == [4, 5]
    assert a.renew([held]) == b.renew([other]) == [], "each still has its own"


# --- what a submitter sees


def test_places_can_be_entered_in_a_pipeline(client, worker):
    jobs = some_jobs(6)
    Ledger(client).open("r", output="/out", digest="d", jobs=6, images=6, common={})
    queue = JobQueue(client)
    pipe = client.pipeline(transaction=False)
    for start in (0, 2, 4):
        assert queue.enqueue("r", start, start + 2, as_entries(list(enumerate(jobs))[start : start + 2]), pipe=pipe)
    assert pipe.execute() == [2, 4, 6]
    assert indices(worker("a").claim(jobs[0].shape, 8)) == [0, 1, 2, 3, 4, 5]


def test_an_unknown_run_takes_no_jobs(client):
    queue, entries = JobQueue(client), as_entries([(0, some_jobs(1)[0])])
    for enter in (lambda: queue.enqueue("r", 0, 1, entries), lambda: queue.reenter("r", entries)):
        with pytest.raises(LedgerError, match="run 'r' is not in this Redis any more"):
            enter()
    assert client.keys("*") == []


def test_a_failed_job_is_entered_anew_with_all_its_tries(client, enter, worker):
    jobs = some_jobs(CHUNK + 7)
    queue, a = enter(jobs), worker("a")
    for claim in a.claim(jobs[0].shape, len(jobs)):
        a.failed(claim, "no luck")
    ledger = Ledger(client)
    assert ledger.failed_indexes("r") == list(range(len(jobs)))
    assert queue.reenter("r", as_entries(enumerate(jobs), shared_fields(jobs))) == len(jobs)
    status = ledger.status("r")
    assert (status.failed, status.left, status.pending, status.state) == (0, len(jobs), len(jobs), "running")
    assert list(ledger.failures("r")) == [] == ledger.failed_indexes("r")
    assert {claim.deliveries for claim in a.claim(jobs[0].shape, len(jobs))} == {1}


def test_an_image_that_was_there_is_counted_though_its_job_had_failed(client, enter, worker):
    """Its run was cancelled and begun anew while a worker held it, and that worker gives it up first."""
    jobs = some_jobs(2)
    queue, a = enter(jobs), worker("a")
    (held,) = a.claim(jobs[0].shape, 1)
    a.failed(held, "too late")
    client.hset(run_key("r"), "enqueued", 0)
    queue.enqueue("r", 0, 2, [], present=[0])
    status = Ledger(client).status("r")
    assert (status.done, status.failed, status.left) == (1, 0, 1)


# --- what it costs


def test_a_job_costs_its_prompt_and_120_bytes(client, worker):
    """Twenty thousand of them: enough that what the run costs once is nothing beside it."""
    count, prompt = 20_000, "a lighthouse on a cliff at dusk, oil on canvas, by a patient painter, number {:06d}"
    Ledger(client).open("r", output="/out", digest="d", jobs=count, images=count, common={})
    before = client.info("memory")["used_memory"]
    queue, shape = JobQueue(client), some_jobs(1)[0].shape.key
    for start in range(0, count, CHUNK):
        indexes = range(start, start + CHUNK)
        entries = [(n, shape, canonical_json({"prompt": prompt.format(n), "seed": n})) for n in indexes]
        queue.enqueue("r", start, start + CHUNK, entries)
    size = client.info("memory")["used_memory"] - before
    assert size / count <= len(prompt.format(0)) + 120


def test_a_look_for_work_is_cheap_with_a_thousand_runs(client, enter, worker):
    jobs = some_jobs(1)
    for run in range(1000):
        enter(jobs, f"run-{run}")
    a = worker("a")
    client.config_resetstat()
    for _ in range(20):
        (ready,) = a.claimable()
        a.claim(ready.shape, 8)
    calls = client.info("commandstats")
    looks = sum(calls[f"cmdstat_{name}"]["calls"] for name in ("xpending", "xlen", "xreadgroup", "zrange"))
    assert looks < 20 * 300, "not each run is looked at each time"


def test_a_failure_of_before_a_cancel_does_not_count_against_the_job_that_was_entered_anew(enter, worker, client):
    """The next retry would enter it twice."""
    jobs = some_jobs(1)
    enter(jobs)
    (old,) = worker("a").claim(jobs[0].shape, 1)
    cancel(client, "r")
    enter(jobs)
    assert not worker("a").failed(old, "too late")
    assert Ledger(client).failed_indexes("r") == []
    assert indices(worker("b").claim(jobs[0].shape, 5)) == [0]
