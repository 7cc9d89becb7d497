"""A job that kills every worker that renders it is given up, and takes nobody along."""

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import redis

from tests.farm import Farm, farm_of, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def farm(client: redis.Redis, redis_url: str, tmp_path: Path) -> Iterator[Farm]:
    with farm_of(redis_url, tmp_path) as farm:
        yield farm


def test_poison_is_given_up_after_three_workers_and_the_others_land(farm: Farm, tmp_path):
    farm.environ |= {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "PROMPTMILL_LEASE_S": "2"}
    prompts = [f"prompt {n}" for n in range(12)]
    prompts[5] = "poison"
    farm.submit(prompts, str(tmp_path), "r", "--steps", "2")
    deaths = 0
    while not farm.run("r")["finished"]:
        worker = farm.start_worker(
            *(sys.executable, "-m", "celery", "-A", "tests.chaos.poison", "worker", "--pool", "threads", "-l", "INFO")
        )
        wait_until(partial(_dead_or_done, farm, worker), "it dies or it is done")
        deaths += worker.poll() is not None
        assert deaths <= 3, "one job, three deaths"
    run = farm.run("r")
    assert (run["done"], run["failed"], deaths) == (11, 1, 3)
    (failure,) = farm.status("r")["runs"][0]["failures"]
    assert failure["index"] == 5
    assert "3 workers" in failure["reason"]


def _dead_or_done(farm: Farm, worker: subprocess.Popen[bytes]) -> bool:
    return worker.poll() is not None or farm.run("r")["finished"]
