"""What Celery's own tools are told of our jobs: `celery inspect ...`, `celery control ...`, as a user types them."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from promptmill.producer.outputs.open import open_output
from promptmill.producer.plan_files import load_plan
from promptmill.producer.queue.ledger import Ledger
from promptmill.producer.queue.workers import Workers
from tests.farm import Farm, farm_of, wait_until

pytestmark = pytest.mark.slow

TINY = ["--model", "tiny-random", "--steps", "2"]
SLOW = ["--model", "tiny-random", "--steps", "400"]


@pytest.fixture
def farm(client: redis.Redis, redis_url: str, tmp_path: Path) -> Iterator[Farm]:
    with farm_of(redis_url, tmp_path) as farm:
        yield farm


@pytest.fixture
def busy(farm: Farm, client: redis.Redis) -> Farm:
    """A worker at 60 jobs that take it a while."""
    farm.start_worker()
    farm.submit([f"prompt {n}" for n in range(60)], str(farm.folder / "out"), "r", *SLOW)
    wait_until(lambda: Ledger(client).status("r").done, "the first image", 300)
    return farm


def celery(farm: Farm, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "celery", "-A", "promptmill.worker.app", *words]
    return subprocess.run(command, env=farm.environ, capture_output=True, text=True, timeout=60, check=False)


def inspect(farm: Farm, *words: str) -> Any:
    """What the one worker answers."""
    answer = celery(farm, "inspect", *words, "--json", "--timeout", "5")
    assert answer.returncode == 0, answer.stderr
    (told,) = json.loads(answer.stdout).values()
    return told


def ids_of(farm: Farm, run: str) -> list[str]:
    with load_plan(open_output(str(farm.folder / "out")).child(run)) as plan:
        return [job.id for job in plan]


def test_inspect_tells_of_the_jobs_that_are_held(busy: Farm) -> None:
    ids = set(ids_of(busy, "r"))
    active = wait_until(lambda: inspect(busy, "active"), "active jobs")
    assert {job["id"] for job in active} <= ids
    assert {job["name"] for job in active} == {"promptmill.render"}
    assert all(job["args"][0].startswith("prompt ") and job["kwargs"]["run"] == "r" for job in active)
    (found,) = inspect(busy, "query_task", active[0]["id"]).values() or [("ready", {})]
    assert found[0] in ("active", "ready")
    assert {job["id"] for job in inspect(busy, "reserved")} <= ids
    assert "promptmill.render" in inspect(busy, "registered")
    stats = inspect(busy, "stats")
    assert stats["total"]["promptmill.render"] >= len(active)
    assert stats["promptmill"]["devices"] == 1 and stats["promptmill"]["state"] == "rendering"


def test_a_consumer_that_is_cancelled_claims_nothing_until_it_is_added_again(busy: Farm, client: redis.Redis) -> None:
    assert celery(busy, "control", "cancel_consumer", "promptmill").returncode == 0
    wait_until(lambda: [worker.state for worker in Workers(client).alive()] == ["paused"], "the worker is paused")
    left = Ledger(client).status("r")
    assert left.done < 60
    assert Ledger(client).status("r").done == left.done
    assert celery(busy, "control", "add_consumer", "promptmill").returncode == 0
    wait_until(lambda: Ledger(client).status("r").done > left.done, "it goes on")


def test_a_revoke_while_no_worker_runs_is_kept(farm: Farm, client: redis.Redis) -> None:
    farm.submit([f"prompt {n}" for n in range(8)], str(farm.folder / "out"), "r", *TINY)
    first = ids_of(farm, "r")[0]
    celery(farm, "control", "revoke", first)
    farm.start_worker()
    status = farm.wait_until_finished("r")
    assert (status["done"], status["failed"]) == (7, 1)
    assert [failure["reason"] for failure in farm.status("r")["runs"][0]["failures"]] == ["revoked"]


def test_a_run_is_revoked_by_its_name(busy: Farm, client: redis.Redis) -> None:
    assert celery(busy, "control", "revoke", "r").returncode == 0
    assert wait_until(lambda: Ledger(client).status("r").state == "cancelled", "the run is cancelled")


@pytest.mark.parametrize("command", ["pool_shrink", "pool_grow"])
def test_the_pool_keeps_its_size_with_a_sentence(busy: Farm, command: str) -> None:
    told = celery(busy, "control", command, "1")
    assert "has the size of --concurrency from its start on" in told.stdout + told.stderr
    assert "Traceback" not in told.stdout + told.stderr


def test_purge_loses_no_job(busy: Farm, client: redis.Redis) -> None:
    assert celery(busy, "purge", "-f").returncode == 0
    assert Ledger(client).status("r").images == 60
    celery(busy, "control", "revoke", "r")
