"""`promptmill exporter`: the ledger's counts under Prometheus' names, also while Redis is away."""

import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from promptmill.producer.job import Job
from promptmill.producer.queue.control import pause, set_priority
from promptmill.producer.queue.ledger import Ledger
from promptmill.producer.queue.queue import JobQueue
from promptmill.producer.queue.workers import WorkerReport, Workers
from tests.entries import as_entries
from tests.farm import wait_until
from tests.mortal_redis import MortalRedis

JOBS = [Job(prompt=f"image {n}", width=64, height=64) for n in range(9)]
SHAPE = JOBS[0].shape


def values(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    """Name and the labels' values, in the order of their names -> value."""
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def farm_of_two_runs(client: redis.Redis) -> None:
    """One run with two images done, one failed, two held; and a paused one that nobody has begun."""
    queue = JobQueue(client, "w")
    for run, jobs in (("one", JOBS), ("two", JOBS[:4])):
        Ledger(client).open(run, output="/out", digest=run, jobs=len(jobs), images=len(jobs), common={})
        queue.enqueue(run, 0, len(jobs), as_entries(enumerate(jobs)))
        if run == "one":
            first, second, third, *_ = queue.claim(SHAPE, 5)
            queue.done(first)
            queue.done(second)
            queue.failed(third, 'the model gave "NaN"\n' + "x" * 200)
    pause(client, "two")
    set_priority(client, "two", "urgent")
    report = WorkerReport("w@host", "rendering", "tpu", 8, images=2, images_per_s=1.5, problems={"/out": "full"})
    Workers(client).report(report)


def test_runs_queues_and_workers_are_told(farm_of_two_runs: None, at_redis: str, promptmill: Any) -> None:
    ran = promptmill("exporter", "--once")
    assert ran.code == 0, ran.err
    found = values(ran.out)
    assert found["promptmill_redis_up", ()] == 1
    of_one = ("normal", "one", "running")
    counts = {what: found["promptmill_run_images", (what, *of_one)] for what in ("done", "failed", "cancelled", "left")}
    assert counts == {"done": 2, "failed": 1, "cancelled": 0, "left": 6}
    assert found["promptmill_run_created_timestamp_seconds", of_one] > 1.7e9
    assert found["promptmill_run_last_image_timestamp_seconds", of_one] > 1.7e9
    jobs = {labels: value for (name, labels), value in found.items() if name == "promptmill_queue_jobs"}
    assert jobs == {
        ("normal", SHAPE.key, "waiting"): 4,
        ("normal", SHAPE.key, "held"): 2,
        ("urgent", SHAPE.key, "paused"): 4,
        ("urgent", SHAPE.key, "held"): 0,
    }
    ((reason, _),) = [labels for name, labels in found if name == "promptmill_run_failures"]
    assert reason.startswith('the model gave "NaN"\n') and len(reason) == 80
    assert found["promptmill_workers", ("rendering",)] == 1 and found["promptmill_workers", ("ready",)] == 0
    assert found["promptmill_worker_images_total", ("w@host",)] == 2
    assert found["promptmill_worker_devices", ("tpu", "w@host")] == 8
    assert found["promptmill_worker_problems", ("w@host",)] == 1
    assert found["promptmill_malformed_entries_total", ()] == 0


def test_many_reasons_are_one_label(client: redis.Redis, at_redis: str, promptmill: Any) -> None:
    jobs = [Job(prompt=f"image {n}", width=64, height=64) for n in range(30)]
    Ledger(client).open("r", output="/out", digest="d", jobs=30, images=30, common={})
    queue = JobQueue(client, "w")
    queue.enqueue("r", 0, 30, as_entries(enumerate(jobs)))
    for claim in queue.claim(SHAPE, 30):
        queue.failed(claim, f"reason {claim.index}")
    found = values(promptmill("exporter", "--once").out)
    reasons = {labels[0]: value for (name, labels), value in found.items() if name == "promptmill_run_failures"}
    assert len(reasons) == 21 and reasons["others"] == 10 and sum(reasons.values()) == 30


def test_names_follow_prometheus_rules(farm_of_two_runs: None, at_redis: str, promptmill: Any) -> None:
    if not shutil.which("promtool"):
        if os.environ.get("CI") == "true":
            pytest.fail("CI installs promtool")
        pytest.skip("no promtool here (Debian's package prometheus)")
    told = promptmill("exporter", "--once").out
    check = subprocess.run(["promtool", "check", "metrics"], input=told, capture_output=True, text=True)
    assert (check.returncode, check.stdout + check.stderr) == (0, "")


@pytest.fixture
def exporter(mortal_redis: MortalRedis) -> Iterator[str]:
    """Its address, as it says it."""
    command = [sys.executable, "-P", "-m", "promptmill", "exporter", "--port", "0", "--address", "127.0.0.1"]
    process = subprocess.Popen([*command, "--broker", mortal_redis.url], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    yield process.stderr.readline().strip()
    process.terminate()
    process.wait()


def test_a_redis_that_is_away_is_a_metric_and_no_error(exporter: str, mortal_redis: MortalRedis) -> None:
    def up() -> float:
        with urllib.request.urlopen(exporter) as answer:
            return values(answer.read().decode())["promptmill_redis_up", ()]

    assert up() == 1
    mortal_redis.kill()
    assert up() == 0
    mortal_redis.start()
    wait_until(lambda: up() == 1, "it is up again")


def test_a_port_that_is_taken_is_a_sentence(exporter: str, at_redis: str, promptmill: Any) -> None:
    port = exporter.rpartition(":")[2].partition("/")[0]
    ran = promptmill("exporter", "--address", "127.0.0.1", "--port", port)
    assert ran.code == 2 and f"cannot listen on 127.0.0.1:{port}: Address already in use" in ran.err


def test_the_page_names_the_metrics_that_there_are(farm_of_two_runs: None, at_redis: str, promptmill: Any) -> None:
    told = {name for name, _ in values(promptmill("exporter", "--once").out)}
    page = (Path(__file__).parents[3] / "docs" / "monitoring.md").read_text()
    of_farms = page.partition("## Metrics of a worker")[0]
    assert set(re.findall(r"`(promptmill_\w+)`", of_farms)) == told | {
        "promptmill_run_images_per_second",  # not there while nothing has a rate
        "promptmill_run_eta_seconds",
    }


def test_no_label_is_one_that_prometheus_sets_itself(farm_of_two_runs: None, at_redis: str, promptmill: Any) -> None:
    told = text_string_to_metric_families(promptmill("exporter", "--once").out)
    labels = {label for family in told for sample in family.samples for label in sample.labels}
    assert labels and not labels & {"job", "instance"}, "a scrape renames it to exported_job"
