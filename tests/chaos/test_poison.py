"""A job or a shape that kills every worker that renders or compiles it is given up, and takes nobody along."""

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import redis

from promptmill.producer.queue.compiling import MAX_DEATHS, Compiling
from promptmill.producer.queue.ledger import Ledger
from promptmill.producer.queue.queue import JobQueue
from tests.chaos.widths import DEADLY_WIDTH, SLOW_WIDTH
from tests.farm import Farm, farm_of, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def farm(client: redis.Redis, redis_url: str, tmp_path: Path) -> Iterator[Farm]:
    with farm_of(redis_url, tmp_path) as farm:
        yield farm


def start_worker(farm: Farm) -> subprocess.Popen[bytes]:
    return farm.start_worker(
        *(sys.executable, "-m", "celery", "-A", "tests.chaos.poison", "worker", "--pool", "threads", "-l", "INFO")
    )


def is_over(farm: Farm, run: str, worker: subprocess.Popen[bytes]) -> bool:
    return worker.poll() is not None or bool(farm.run(run)["finished"])


def deaths_until_finished(farm: Farm, run: str, most: int) -> int:
    """One worker after the other until the run is finished; how many died."""
    deaths = 0
    while not farm.run(run)["finished"]:
        worker = start_worker(farm)
        wait_until(partial(is_over, farm, run, worker), "it dies or it is done")
        deaths += worker.poll() is not None
        assert deaths <= most
    return deaths


def test_poison_is_given_up_after_three_workers_and_the_others_land(farm: Farm, tmp_path):
    farm.environ |= {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "PROMPTMILL_LEASE_S": "2"}
    prompts = [f"prompt {n}" for n in range(12)]
    prompts[5] = "poison"
    farm.submit(prompts, str(tmp_path), "r", "--steps", "2")
    deaths = deaths_until_finished(farm, "r", most=3)
    run = farm.run("r")
    assert (run["done"], run["failed"], deaths) == (11, 1, 3)
    (failure,) = farm.status("r")["runs"][0]["failures"]
    assert failure["index"] == 5
    assert "3 workers" in failure["reason"]


def test_a_shape_that_kills_while_it_is_compiled_is_given_up_and_the_good_ones_land(farm: Farm, tmp_path):
    farm.environ |= {"PROMPTMILL_LEASE_S": "2"}
    farm.submit([f"bad {n}" for n in range(150)], str(tmp_path), "bad", "--width", str(DEADLY_WIDTH))
    farm.submit([f"good {n}" for n in range(10)], str(tmp_path), "good", "--steps", "2")
    # Workers of ever new names: their predecessors' deaths show when their marks are not renewed.
    deaths = deaths_until_finished(farm, "bad", most=6)
    bad, good = farm.run("bad"), farm.wait_until_finished("good")
    assert (bad["done"], bad["failed"]) == (0, 150)
    assert deaths >= 3
    assert (good["done"], good["failed"]) == (10, 0)
    assert "3 workers died while they loaded or compiled" in farm.status("bad")["runs"][0]["failures"][0]["reason"]


def test_a_slow_compile_keeps_no_ready_shape_waiting(farm: Farm, tmp_path):
    start_worker(farm)
    farm.wait_until_ready(0)
    farm.submit(["slow"], str(tmp_path), "slow", "--width", str(SLOW_WIDTH), "--priority", "urgent")
    wait_until(lambda: farm.status("slow")["workers"][0]["state"] == "compiling", "it compiles")
    farm.submit([f"quick {n}" for n in range(8)], str(tmp_path), "quick", "--steps", "2")
    assert farm.wait_until_finished("quick")["done"] == 8
    assert not farm.run("slow")["finished"], "rendered beside the compilation"
    assert farm.wait_until_finished("slow")["done"] == 1


def test_a_job_that_hangs_the_device_is_given_up_and_the_worker_starts_itself_anew(farm: Farm, tmp_path):
    farm.environ |= {"PROMPTMILL_LEASE_S": "2", "PROMPTMILL_HANG_TIMEOUT_S": "8"}
    farm.submit(["one", "hang", "two", "three"], str(tmp_path), "r", "--steps", "2")
    worker = start_worker(farm)
    run = farm.wait_until_finished("r", timeout_s=300)
    assert (run["done"], run["failed"]) == (3, 1)
    (failure,) = farm.status("r")["runs"][0]["failures"]
    assert (failure["index"], "took more than 8 s" in failure["reason"]) == (1, True)
    assert worker.poll() is None, "it is the same process, begun anew"
    assert farm.log(0).count("restarts itself") == 3
    assert farm.log(0).count("ready to claim") >= 3


def test_a_batch_too_large_for_the_device_goes_on_in_halves(farm: Farm, tmp_path):
    farm.environ |= {"PROMPTMILL_PER_DEVICE_BATCH": "4"}
    start_worker(farm)
    farm.wait_until_ready(0)
    farm.submit([f"large {n}" for n in range(12)], str(tmp_path), "r", "--steps", "2")
    run = farm.wait_until_finished("r", timeout_s=400)  # of which three compilations
    assert (run["done"], run["failed"]) == (12, 0)
    assert "out of memory with 4 images per device; continuing with 2" in farm.log(0)
    assert "out of memory with 2 images per device; continuing with 1" in farm.log(0)
    assert "it goes on with 1 image per device" in str(farm.status("r")["workers"][0]["problems"])


def test_a_worker_killed_while_it_fails_jobs_leaves_the_rest_to_another(farm: Farm, client: redis.Redis, tmp_path):
    farm.environ |= {"PROMPTMILL_LEASE_S": "2"}
    farm.submit([f"bad {n}" for n in range(6000)], str(tmp_path), "bad", "--width", str(DEADLY_WIDTH))
    (shape,) = JobQueue(client).backlog()
    for death in range(MAX_DEATHS):
        Compiling(client, f"dead/{death}").begin(shape)
    worker, ledger = start_worker(farm), Ledger(client)
    wait_until(lambda: ledger.status("bad").failed, "it fails jobs")
    worker.kill()
    worker.wait()
    assert 0 < ledger.status("bad").failed < 6000
    start_worker(farm)
    bad = farm.wait_until_finished("bad")
    assert (bad["done"], bad["failed"], bad["left"]) == (0, 6000, 0)
    failures = list(ledger.failures("bad"))
    assert {failure.index for failure in failures} == set(range(6000))
    assert len(failures) == 6000
    assert all("3 workers died" in failure.reason for failure in failures)
