"""The ledger: where each run stands, cheaply."""

import dataclasses
import time
from collections.abc import Callable

import pytest
import redis

from promptmill.producer.errors import LedgerError
from promptmill.producer.job import Job
from promptmill.producer.queue.control import pause, unpause
from promptmill.producer.queue.keys import RUNS, done_key, failed_key, failures_key, run_key
from promptmill.producer.queue.ledger import (
    KEEP_S,
    Failure,
    Ledger,
    RunStatus,
)
from promptmill.producer.queue.queue import Claim, JobQueue
from tests.entries import as_entries

RUNNING = RunStatus(
    run="r",
    output="/out",
    jobs=12,
    images=10,
    enqueued=12,
    present=0,
    done=5,
    failed=1,
    created=100.0,
    first_done=110.0,
    last_done=118.0,
)


@pytest.fixture
def ledger(client: redis.Redis) -> Ledger:
    return Ledger(client)


@pytest.fixture
def enter(ledger: Ledger) -> Callable[..., None]:
    def enter(run: str, output: str = "/out", digest: str = "d", images: int = 1) -> None:
        ledger.open(run, output=output, digest=digest, jobs=images, images=images, common={"width": 64})

    return enter


def test_a_new_run_has_nothing_done(ledger, enter):
    before = time.time()
    enter("r", images=3)
    status = ledger.status("r")
    assert (status.run, status.output, status.jobs, status.images) == ("r", "/out", 3, 3)
    assert (status.enqueued, status.present, status.done, status.failed, status.left) == (0, 0, 0, 0, 3)
    assert not status.finished
    assert (status.first_done, status.images_per_s, status.eta_s) == (None, None, None)
    assert before <= status.created <= time.time()
    assert ledger.settings("r") == ("/out", {"width": 64})


def test_a_run_entered_again_keeps_its_counts_and_its_creation(client, ledger, enter):
    enter("r")
    client.hset(run_key("r"), "done", 1)
    before = ledger.status("r")
    enter("r")
    assert ledger.status("r") == before
    assert before.done == 1


@pytest.mark.parametrize(
    ("other", "problem"), [({"output": "/elsewhere"}, "at /out"), ({"digest": "e"}, "with other jobs")]
)
def test_a_name_that_stands_for_another_run_is_refused_and_keeps_it(ledger, enter, other, problem):
    enter("r")
    before = ledger.status("r")
    with pytest.raises(LedgerError, match=f"run 'r' is known to this Redis {problem}: pass another name with --run"):
        enter("r", **other)
    assert ledger.status("r") == before


def test_runs_are_listed_the_newest_first(ledger, enter):
    for run in ("b", "a", "c"):
        enter(run)
    enter("b")
    assert [status.run for status in ledger.runs()] == ["c", "a", "b"]


def test_a_run_whose_keys_were_deleted_is_not_listed(client, ledger, enter):
    enter("a")
    enter("b")
    client.delete(run_key("a"))
    assert [status.run for status in ledger.runs()] == ["b"]


def test_an_unknown_run_is_told(ledger):
    with pytest.raises(LedgerError, match="no run 'x' in this Redis; `promptmill status` lists those there are"):
        ledger.status("x")
    assert ledger.settings("x") is None
    assert list(ledger.failures("x")) == []


def test_the_rate_is_from_the_first_image_to_the_last_and_the_rest_takes_as_long():
    assert RUNNING.left == 4
    assert RUNNING.images_per_s == 0.5
    assert RUNNING.eta_s == 8.0


@pytest.mark.parametrize(
    "change",
    [
        {"done": 0, "first_done": None, "last_done": None},
        {"done": 1, "last_done": 110.0},
        {"last_done": 110.0},
        {"last_done": 110.001},
    ],
    ids=["none yet", "one", "all at one moment", "almost"],
)
def test_there_is_no_rate_before_there_are_two_images(change):
    status = dataclasses.replace(RUNNING, **change)
    assert (status.images_per_s, status.eta_s) == (None, None)


def test_a_run_is_finished_when_each_image_is_done_or_failed():
    assert not RUNNING.finished
    assert dataclasses.replace(RUNNING, done=9).finished


@pytest.fixture
def held(client: redis.Redis, enter) -> Callable[..., tuple[JobQueue, list[Claim]]]:
    """A run whose jobs are all with one worker."""

    def held(count: int, run: str = "r") -> tuple[JobQueue, list[Claim]]:
        enter(run, images=count)
        queue = JobQueue(client, "w")
        jobs = [Job(prompt=f"{n}", width=64, height=64) for n in range(count)]
        queue.enqueue(run, 0, count, as_entries(enumerate(jobs)))
        return queue, queue.claim(jobs[0].shape, count)

    return held


def test_reasons_of_failures_survive_any_text(ledger, held):
    queue, (_, second) = held(2)
    queue.failed(second, 'too "big"\n苹果')
    assert list(ledger.failures("r")) == [Failure(1, second.job.id, 'too "big"\n苹果')]


def test_failures_are_counted_by_reason_and_told_by_place(ledger, held):
    queue, claims = held(20)
    for claim in claims[3:]:
        queue.failed(claim, "too dark" if claim.index < 8 else "too bright")
    queue.done(claims[19])
    assert ledger.failures_by_reason("r") == {"too bright": 11, "too dark": 5}
    assert ledger.failed_indexes("r") == list(range(3, 19))
    assert (ledger.failures_by_reason("x"), ledger.failed_indexes("x")) == ({}, [])


def test_pending_is_what_was_entered_and_is_not_settled(ledger, held):
    queue, claims = held(3)
    assert ledger.status("r").pending == 3
    queue.done(claims[0])
    assert ledger.status("r").pending == 2
    queue.done(claims[0])
    assert ledger.status("r").pending == 2, "once is once"
    queue.failed(claims[1], "no")
    queue.done(claims[2])
    assert ledger.status("r").pending == 0


def test_prompts_that_were_cut_are_counted_with_their_images(ledger, held):
    queue, claims = held(3)
    queue.done(claims[0], cut=True)
    queue.done(claims[0], cut=True)
    queue.done(claims[1])
    assert ledger.status("r").truncated == 1


def looked_back(client: redis.Redis, seconds: float, *names: str) -> None:
    """As if what these fields tell of had been so many seconds earlier."""
    for name in names:
        client.hincrbyfloat("promptmill:run:r", name, -seconds)


@pytest.fixture
def steady(client: redis.Redis, ledger: Ledger, held) -> tuple[JobQueue, list[Claim]]:
    """A run of 30 images at 1 image/s, of which 11 are there, the last one now."""
    queue, claims = held(30)
    for claim in claims[:11]:
        queue.done(claim)
    client.hset("promptmill:run:r", "bursts", 11)
    looked_back(client, 10, "first_done")
    assert ledger.status("r").images_per_s == pytest.approx(1, rel=0.2)
    return queue, claims[11:]


def test_a_rate_does_not_span_an_outage(client, ledger, steady):
    queue, claims = steady
    looked_back(client, 3600, "first_done", "last_done")
    status = ledger.status("r")
    assert (status.stands_still, status.eta_s) == (True, None), "how long it lasts is not known"
    queue.done(claims[0])
    status = ledger.status("r")
    assert status.images_per_s == pytest.approx(1, rel=0.2)
    assert status.stopped_s == pytest.approx(3600, rel=0.01)
    assert status.eta_s == pytest.approx(18, rel=0.2)


def test_a_rate_does_not_span_a_pause(client, ledger, steady):
    queue, claims = steady
    pause(client, "r")
    queue.done(claims[0])
    looked_back(client, 3600, "first_done", "last_done", "paused_at")
    unpause(client, "r")
    assert not ledger.status("r").stands_still
    queue.done(claims[1])
    assert ledger.status("r").images_per_s == pytest.approx(1.2, rel=0.2)


def test_a_rate_does_not_span_the_time_before_a_retry(client, ledger, held):
    queue, claims = held(3)
    queue.done(claims[0])
    queue.done(claims[1])
    queue.failed(claims[2], "no")
    looked_back(client, 2, "first_done")
    looked_back(client, 3600, "first_done", "last_done")
    queue.reenter("r", as_entries([(2, claims[2].job)]))
    (again,) = queue.claim(claims[2].shape, 1)
    queue.done(again)
    assert ledger.status("r").images_per_s == pytest.approx(1, rel=0.2)


def test_batches_that_take_minutes_are_no_stops(client, ledger, held):
    queue, claims = held(12)
    for batch in range(3):
        for claim in claims[4 * batch : 4 * batch + 4]:
            queue.done(claim)
        if batch < 2:
            looked_back(client, 120, "first_done", "last_done")
    assert ledger.status("r").stopped_s == 0
    assert ledger.status("r").images_per_s == pytest.approx(11 / 240, rel=0.1)


def test_states_follow_the_counts(ledger, held):
    queue, claims = held(2)
    assert ledger.status("r").state == "running"
    queue.done(claims[0])
    assert ledger.status("r").state == "running"
    queue.failed(claims[1], "no")
    assert ledger.status("r").state == "finished"


def test_a_priority_is_kept_and_a_wrong_one_refused(client, ledger):
    run = {"output": "/out", "digest": "d", "jobs": 1, "images": 1, "common": {}}
    with pytest.raises(LedgerError, match="no priority 'high': expected one of urgent, normal, low"):
        ledger.open("r", **run, priority="high")
    assert client.keys("*") == []
    ledger.open("r", **run, priority="low")
    ledger.open("r", **run)
    assert ledger.status("r").priority == "low"


# --- expiry


def ttls(client: redis.Redis, run: str = "r") -> set[int]:
    return {client.ttl(key) for key in client.scan_iter(f"promptmill:run:{run}*")}


def test_a_finished_runs_keys_expire_together_and_those_of_others_do_not(client, ledger, held):
    queue, claims = held(2)
    assert ttls(client) == {-1}
    queue.done(claims[0])
    assert ttls(client) == {-1}
    queue.failed(claims[1], "no")
    assert {done_key("r"), failed_key("r"), failures_key("r")} < set(client.scan_iter("promptmill:run:r*"))
    assert all(KEEP_S - 10 < left <= KEEP_S for left in ttls(client))
    queue.done(claims[1])
    assert all(KEEP_S - 10 < left <= KEEP_S for left in ttls(client)), "a late image leaves nothing behind for ever"


def test_a_run_that_has_all_its_images_from_the_start_expires_too(client, ledger, enter):
    enter("r", images=2)
    JobQueue(client).enqueue("r", 0, 2, [], present=[0, 1])
    assert ledger.status("r").state == "finished"
    assert ttls(client).isdisjoint({-1})


def test_a_run_that_goes_on_does_not_expire(client, ledger, held):
    queue, (claim,) = held(1)
    queue.failed(claim, "no")
    assert queue.reenter("r", as_entries([(0, claim.job)])) == 1
    assert ttls(client) == {-1}


def test_an_expired_run_is_swept_off_the_list_and_its_name_is_free(client, ledger, enter):
    enter("a")
    enter("r", images=1)
    client.hset(run_key("r"), "keep_s", 1)
    JobQueue(client).enqueue("r", 0, 1, [], present=[0])
    deadline = time.monotonic() + 5
    while client.exists(run_key("r"), done_key("r"), failed_key("r")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [status.run for status in ledger.runs()] == ["a"]
    assert client.zrange(RUNS, 0, -1) == ["a"]
    enter("r", digest="another", images=5)
    assert ledger.status("r").left == 5


def test_bits_of_a_run_whose_hash_is_gone_are_not_another_runs(client, ledger, enter):
    """Keys expire each for itself: a new run of the name may come between two of them."""
    client.setbit(done_key("r"), 3, 1)
    client.setbit(failed_key("r"), 2, 1)
    client.hset(failures_key("r"), "2", "{}")
    enter("r", images=5)
    assert client.exists(done_key("r"), failed_key("r"), failures_key("r")) == 0


def test_nothing_expires_where_it_is_kept_for_ever(client, ledger):
    ledger.open("r", output="/out", digest="d", jobs=1, images=1, common={}, keep_s=0)
    JobQueue(client).enqueue("r", 0, 1, [], present=[0])
    assert ledger.status("r").state == "finished"
    assert ttls(client) == {-1}


def test_ten_million_jobs_cost_two_megabytes(client, ledger, enter):
    enter("r", images=10_000_000)
    client.setbit(done_key("r"), 9_999_999, 1)
    client.setbit(failed_key("r"), 9_999_999, 1)
    size = sum(client.memory_usage(key) for key in client.scan_iter("promptmill:*"))
    assert size < 3_200_000
