"""Workers are killed outright, one after the other; what they leave in Redis goes with the next one that lives."""

import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import redis

from promptmill.producer.queue.keys import PIDBOX, WORKERS
from tests.farm import Farm, farm_of, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def farm(client: redis.Redis, redis_url: str, tmp_path: Path) -> Iterator[Farm]:
    with farm_of(redis_url, tmp_path) as farm:
        farm.environ["PROMPTMILL_LEASE_S"] = "2"
        yield farm


def names(client: redis.Redis) -> list[set[str]]:
    """The workers that Redis knows: of each stream, of the reports, and of Celery's commands."""
    streams = [client.xinfo_consumers(name, "workers") for name in client.scan_iter("promptmill:queue:*")]
    found = [{one["name"].partition("/")[0] for one in consumers} for consumers in streams]
    pidboxes = {one.strip("\x06\x16").removesuffix(".celery.pidbox") for one in map(str, client.smembers(PIDBOX))}
    return [*found, set(client.hkeys(WORKERS)), pidboxes]


def knows(client: redis.Redis, worker: subprocess.Popen[bytes]) -> bool:
    return all(any(one.startswith(f"promptmill-{worker.pid}@") for one in found) for found in names(client))


def test_redis_ends_with_the_living_worker_alone(farm, client, tmp_path):
    farm.submit([f"prompt {n}" for n in range(5000)], str(tmp_path), "r", "--steps", "20")
    for _ in range(3):
        worker = farm.start_worker()
        wait_until(partial(knows, client, worker), "it has claimed and reported")
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    living = farm.start_worker()
    wait_until(partial(knows, client, living), "it has claimed and reported")
    wait_until(lambda: all(len(found) == 1 for found in names(client)), "only the living one is left")
    assert knows(client, living)
    assert client.keys("_kombu.binding.celeryev*") == [], "no worker listens to the others"
