"""Several runs in one queue: priorities, turns, pauses, and which keys are left."""

import time

import pytest

from promptmill.producer.job import Job
from promptmill.producer.queue.keys import queue_key
from promptmill.producer.queue.ledger import Ledger
from promptmill.producer.queue.queue import MAX_DELIVERIES, JobQueue
from tests.entries import as_entries
from tests.producer.queue.claiming import LEASE_S, let_leases_run_out, runs, some_jobs


def test_a_batch_is_filled_from_several_runs_the_more_urgent_first(enter, worker):
    jobs = some_jobs(3)
    enter(jobs, "low", priority="low")
    enter(jobs, "normal")
    enter(jobs, "urgent", priority="urgent")
    a = worker("a")
    (ready,) = a.claimable()
    assert ready.priority == 2
    assert runs(a.claim(jobs[0].shape, 7)) == ["urgent"] * 3 + ["normal"] * 3 + ["low"]
    (ready,) = a.claimable()
    assert ready.priority == 0


def test_a_later_urgent_run_has_the_next_batch(enter, worker):
    jobs = some_jobs(20)
    enter(jobs, "long")
    a = worker("a")
    assert runs(a.claim(jobs[0].shape, 4)) == ["long"] * 4
    enter(jobs[:3], "urgent", priority="urgent")
    assert runs(a.claim(jobs[0].shape, 4)) == ["urgent"] * 3 + ["long"]
    assert runs(a.claim(jobs[0].shape, 4)) == ["long"] * 4


def test_equal_runs_take_turns_whatever_their_size_and_time_of_coming(enter, worker):
    jobs = some_jobs(80)
    enter(jobs, "first")
    a = worker("a")
    for _ in range(10):
        a.claim(jobs[0].shape, 4)
    enter(jobs[:30], "second")
    served = runs([claim for _ in range(10) for claim in a.claim(jobs[0].shape, 4)])
    assert served[:4] != served[4:8] != served[8:12]
    assert abs(served.count("first") - served.count("second")) <= 4, "a newcomer is not owed what came before it"


def test_a_run_that_had_nothing_for_a_while_is_not_owed_its_turns(client, enter, worker):
    """Its only job is in somebody's hands for long, and then many come: it gets its half, and not all that is next."""
    jobs = some_jobs(100)
    Ledger(client).open("slow", output="/out", digest="d", jobs=100, images=100, common={})
    queue, a = JobQueue(client), worker("a")
    queue.enqueue("slow", 0, 1, as_entries([(0, jobs[0])]))
    enter(jobs, "busy")
    a.claim(jobs[0].shape, 1)
    for _ in range(12):
        a.claim(jobs[0].shape, 4)
    queue.enqueue("slow", 1, 100, as_entries(list(enumerate(jobs))[1:]))
    served = runs([claim for _ in range(8) for claim in a.claim(jobs[0].shape, 4)])
    assert 12 <= served.count("slow") <= 20


@pytest.mark.parametrize("name", ["a", "z"])
def test_small_runs_that_keep_coming_do_not_starve_a_large_one(enter, worker, name):
    """Whatever their names, which decide between those of one score."""
    jobs = some_jobs(60)
    enter(jobs, name)
    served = []
    for number in range(15):
        enter(jobs[:4], f"small-{number}")
        served += runs(worker("w").claim(jobs[0].shape, 4))
    assert served.count(name) >= 15, "there are up to ten others, and it has its turn among them"
    assert name in served[-24:]


def test_a_thousand_runs_whose_jobs_are_all_held_are_not_looked_at_again_and_again(client, enter, worker):
    jobs = some_jobs(1)
    for run in range(1000):
        enter(jobs, f"run-{run}")
    a = JobQueue(client, "a", lease_s=2.0)
    assert len(a.claim(jobs[0].shape, 1000)) == 1000
    client.config_resetstat()
    for _ in range(20):
        assert a.claimable() == []
    calls = client.info("commandstats")
    assert sum(calls.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("xpending", "xlen")) == 0
    time.sleep(2.1)
    b = JobQueue(client, "b", lease_s=2.0)
    while claims := b.claim(jobs[0].shape, 250):
        assert {claim.deliveries for claim in claims} == {2}
    assert b.backlog() == {jobs[0].shape: (0, 1000)}


def test_what_a_dead_worker_held_goes_before_new_jobs_in_each_run(enter, worker):
    jobs = some_jobs(4)
    enter(jobs, "one")
    enter(jobs, "two")
    worker("dead").claim(jobs[0].shape, 2)
    worker("dead").claim(jobs[0].shape, 2)
    let_leases_run_out()
    claims = worker("b").claim(jobs[0].shape, 8)
    assert [(claim.run, claim.index, claim.deliveries) for claim in sorted(claims, key=lambda c: (c.run, c.index))] == [
        (run, index, 2 if index < 2 else 1) for run in ("one", "two") for index in range(4)
    ]


def test_a_last_chance_is_alone_though_there_is_room_beside_others(enter, worker):
    jobs = some_jobs(4)
    enter(jobs[:1], "poison")
    for life in range(MAX_DELIVERIES - 1):
        assert runs(worker(f"life {life}").claim(jobs[0].shape, 4)) == ["poison"]
        let_leases_run_out()
    enter(jobs[:2], "first", priority="urgent")
    batches = [worker("b").claim(jobs[0].shape, 4) for _ in range(2)]
    assert list(map(runs, batches)) == [["first"] * 2, ["poison"]]
    assert batches[1][0].last_chance


def test_leases_of_claims_of_several_runs_are_renewed_together(enter, worker):
    jobs = some_jobs(2)
    enter(jobs, "one")
    enter(jobs, "two")
    a = worker("a")
    claims = a.claim(jobs[0].shape, 4)
    for _ in range(4):
        time.sleep(LEASE_S / 2)
        assert a.renew(claims[1:]) == []
    assert worker("b").claim(jobs[0].shape, 4)[0].entry == claims[0].entry
    assert a.renew(claims) == claims[:1]


def test_entries_of_two_runs_with_one_number_are_two_jobs(client, enter, worker):
    """Redis numbers the entries of each stream by itself."""
    jobs = some_jobs(1)
    enter(jobs, "one")
    enter(jobs, "two")
    for run in ("one", "two"):
        ((entry, fields),) = client.xrange(queue_key(run, jobs[0].shape))
        client.xadd(queue_key(run, jobs[0].shape), fields, id="9999999999999-0")
        client.xdel(queue_key(run, jobs[0].shape), entry)
    one, two = worker("a").claim(jobs[0].shape, 2)
    assert one.entry == two.entry
    worker("a").done(one)
    assert worker("a").renew([one, two]) == []
    assert Ledger(client).status(two.run).done == 0
    let_leases_run_out()
    assert runs(worker("b").claim(jobs[0].shape, 2)) == [two.run]


def test_a_shape_waits_since_it_was_last_claimed_from_and_a_run_since_it_was_last_served(enter, worker):
    small, wide = some_jobs(2)[0], Job(prompt="wide", width=128, height=64)
    enter([small, wide, small], "both")
    a = worker("a")
    time.sleep(0.2)
    a.claim(small.shape, 1)
    by_shape = {ready.shape: ready for ready in a.claimable()}
    assert by_shape[small.shape].waited_s < 0.1
    assert 0.2 <= by_shape[wide.shape].waited_s < 1
    assert by_shape[wide.shape].run_waited_s < 0.1, "its run was served"
    a.promise(wide.shape)
    assert max(ready.waited_s for ready in a.claimable()) < 0.1


def test_what_is_empty_leaves_no_key_behind(client, enter, worker):
    jobs = some_jobs(3)
    enter(jobs)
    a = worker("a")
    for claim in a.claim(jobs[0].shape, 3):
        a.done(claim)
    run_keys = {"promptmill:run:r", "promptmill:run:r:done"}
    assert set(client.keys("promptmill:*")) == {"promptmill:runs", *run_keys}
    a.promise(jobs[0].shape)
    a.leave()
    assert set(client.keys("promptmill:*")) == {"promptmill:runs", *run_keys}
