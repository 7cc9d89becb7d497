"""The workers as Redis sees them."""

import json

import pytest
import redis

from promptmill.producer.queue.keys import WORKERS
from promptmill.producer.queue.workers import STALE_S, WorkerReport, Workers


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
    age(client, "silent", STALE_S + 1)
    age(client, "slow", STALE_S - 5)
    assert [report.name for report in workers.alive()] == ["slow"]
    assert client.hkeys(WORKERS) == ["slow"]


def test_a_worker_that_left_is_gone(workers):
    workers.report(WorkerReport("a", "ready"))
    workers.leave("a")
    assert workers.alive() == []


def test_a_worker_of_another_version_is_shown_as_far_as_it_is_understood(client, workers):
    workers.report(WorkerReport("a", "ready"))
    said = json.loads(client.hget(WORKERS, "a"))
    client.hset(WORKERS, "a", json.dumps({**said, "temperature": 70}))
    assert [report.state for report in workers.alive()] == ["ready"]
