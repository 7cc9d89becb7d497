"""The workers as Redis sees them."""

import json
from typing import Any

import pytest
import redis

from promptmill.producer.job import Job, Shape
from promptmill.producer.queue.keys import PIDBOX, WORKERS, WORKERS_SWEPT, queue_key
from promptmill.producer.queue.ledger import Ledger
from promptmill.producer.queue.queue import JobQueue
from promptmill.producer.queue.workers import STALE_S, WorkerReport, Workers
from tests.entries import as_entries
from tests.farm import wait_until


@pytest.fixture
def workers(client: redis.Redis) -> Workers:
    return Workers(client)


def age(client: redis.Redis, name: str, seconds: float) -> None:
    """Makes a report look that much older."""
    said = json.loads(client.hget(WORKERS, name) or "")
    client.hset(WORKERS, name, json.dumps({**said, "at": said["at"] - seconds}))


def test_a_worker_is_known_by_its_last_report(workers):
    workers.report(WorkerReport("b", "starting"))
    workers.report(
        WorkerReport("a", "ready", platform="tpu", devices=8, images=3, images_per_s=1.5, problems={"m": "why"})
    )
    workers.report(WorkerReport("b", "compiling"))
    a, b = workers.alive()
    assert (a.name, a.state, a.devices, a.images_per_s, a.problems) == ("a", "ready", 8, 1.5, {"m": "why"})
    assert (b.name, b.state) == ("b", "compiling")


def test_a_report_is_stamped_by_redis_clock(client, workers):
    """Those of the hosts may differ, and a worker whose clock is wrong is none the less there."""
    earliest = client.time()[0]
    workers.report(WorkerReport("a", "ready", at=1.0))
    (report,) = workers.alive()
    assert earliest <= report.at <= client.time()[0] + 1


def test_a_worker_that_went_silent_is_gone_and_swept(client, workers):
    for name in ("silent", "slow"):
        workers.report(WorkerReport(name, "rendering"))
        client.sadd(PIDBOX, f"\x06\x16\x06\x16{name}.celery.pidbox")  # as kombu writes it
    age(client, "silent", STALE_S + 1)
    age(client, "slow", STALE_S - 5)
    assert [report.name for report in workers.alive()] == ["slow"]
    assert workers.sweep(lease_s=10)
    assert client.hkeys(WORKERS) == ["slow"]
    assert client.smembers(PIDBOX) == {"\x06\x16\x06\x16slow.celery.pidbox"}


@pytest.mark.parametrize("junk", ["", "[]", "3", "{}", '{"at": 1, "name": "a"}', '{"at": "x"}', "[" * 2000])
def test_a_report_that_nobody_can_read_hides_no_worker_and_is_swept(client, workers, junk):
    workers.report(WorkerReport("a", "ready"))
    client.hset(WORKERS, "b", junk)
    assert [report.name for report in workers.alive()] == ["a"]
    assert workers.sweep(lease_s=10)
    assert client.hkeys(WORKERS) == ["a"]


def test_one_worker_sweeps_for_all(client, workers):
    assert [Workers(client).sweep(lease_s=60) for _ in range(3)] == [True, False, False]
    assert 50 < client.ttl(WORKERS_SWEPT) <= 60


def test_of_44_dead_workers_only_those_that_hold_something_are_left(client, workers):
    jobs = [Job(prompt=f"p{n}", seed=n, width=64, height=64) for n in range(60)]
    Ledger(client).open("r", output="/out", digest="d", jobs=60, images=60, common={})
    JobQueue(client).enqueue("r", 0, 60, as_entries(enumerate(jobs)))
    shape = jobs[0].shape
    for n in range(44):
        dead = JobQueue(client, f"dead-{n}/1", lease_s=60)
        for claim in dead.claim(shape, 1):
            dead.done(claim)
    held = JobQueue(client, "holds/1", lease_s=60).claim(shape, 1)
    wait_until(lambda: min(one["idle"] for one in consumers(client, shape)) > 100, "two leases are over")
    alive = JobQueue(client, "alive/1", lease_s=60)
    assert alive.claim(shape, 1)
    assert workers.sweep(lease_s=0.05)
    assert sorted(one["name"] for one in consumers(client, shape)) == ["alive/1", "holds/1"]
    assert JobQueue(client, "holds/1").renew(held) == [], "what it holds is its own as before"


def consumers(client: redis.Redis, shape: Shape) -> list[dict[str, Any]]:
    return list(client.xinfo_consumers(queue_key("r", shape), "workers"))


def test_a_worker_that_left_is_gone(workers):
    workers.report(WorkerReport("a", "ready"))
    workers.leave("a")
    assert workers.alive() == []


def test_a_worker_of_another_version_is_shown_as_far_as_it_is_understood(client, workers):
    workers.report(WorkerReport("a", "ready"))
    said = json.loads(client.hget(WORKERS, "a"))
    client.hset(WORKERS, "a", json.dumps({**said, "temperature": 70}))
    assert [report.state for report in workers.alive()] == ["ready"]
