"""KEDA's arithmetic on the exporter's real numbers: a real Redis with jobs, a real exporter, a real Prometheus."""

import dataclasses
import math
from pathlib import Path

import pytest
import redis

from promptmill.producer.job import Job
from promptmill.producer.queue.control import pause, unpause
from promptmill.producer.queue.ledger import Ledger
from promptmill.producer.queue.queue import Claim, JobQueue
from tests.deploy.clusters import resource
from tests.deploy.test_prometheus_end_to_end import Prometheus, exporter, farm, prometheus
from tests.entries import as_entries
from tests.farm import wait_until

__all__ = ["exporter", "farm", "prometheus"]

SPEC = resource("tpu-v6e", "ScaledObject", "worker")["spec"]
TRIGGER = SPEC["triggers"][0]["metadata"]
JOBS = 1632


@dataclasses.dataclass
class Keda:
    """What KEDA and the HPA that it makes would do: https://keda.sh/docs (scaling of deployments).

    From no worker to one while the metric is above `activationThreshold`, and back after `cooldownPeriod` without it;
    between one and the most, the HPA's ceil(metric / threshold) for a metric of the type AverageValue.
    """

    workers: int = 0
    idle_s: float = 0.0

    def poll(self, value: float) -> int:
        active = value > float(TRIGGER["activationThreshold"])
        self.idle_s = 0.0 if active else self.idle_s + SPEC["pollingInterval"]
        if active:
            wanted = math.ceil(value / float(TRIGGER["threshold"]))
            self.workers = min(max(wanted, 1, SPEC["minReplicaCount"]), SPEC["maxReplicaCount"])
        else:
            self.workers = SPEC["minReplicaCount"] if self.idle_s >= SPEC["cooldownPeriod"] else min(self.workers, 1)
        return self.workers


@pytest.mark.slow
def test_workers_come_with_the_jobs_and_go_after_them(
    client: redis.Redis, prometheus: Prometheus, tmp_path: Path
) -> None:
    def value() -> float:
        return prometheus.value(TRIGGER["query"])

    def told(number: float) -> float:
        wait_until(lambda: value() == number and prometheus.value("min(promptmill_redis_up)") == 1, f"{number} jobs")
        return number

    # Given an empty farm: no job, no worker
    keda = Keda()
    assert keda.poll(told(0)) == 0
    # When a run is submitted, there are workers for it
    jobs = [Job(prompt=f"image {n}", width=64, height=64) for n in range(JOBS)]
    ledger, queue = Ledger(client), JobQueue(client, "w")
    ledger.open("r", output="/out", digest="d", jobs=JOBS, images=JOBS, common={})
    queue.enqueue("r", 0, JOBS, as_entries(enumerate(jobs)))
    assert keda.poll(told(JOBS)) == 4
    # When it is paused, nobody starts for it
    pause(client, "r")
    assert Keda().poll(told(0)) == 0
    unpause(client, "r")
    # What workers hold still counts: the farm is not shrunk away from its last jobs
    held: list[Claim] = []
    while claims := queue.claim(jobs[0].shape, 500):
        held += claims
    assert keda.poll(told(JOBS)) == 4
    # And when the jobs are done, the workers go, one stays for the time of the cooldown, and then none is left
    for claim in held[:-1]:
        queue.done(claim)
    assert keda.poll(told(1)) == 1
    queue.done(held[-1])
    nothing = told(0)
    polls = [keda.poll(nothing) for _ in range(SPEC["cooldownPeriod"] // SPEC["pollingInterval"])]
    assert polls[:-1] == [1] * (len(polls) - 1) and polls[-1] == 0


def test_a_large_queue_takes_no_more_workers_than_allowed() -> None:
    assert Keda().poll(1e8) == SPEC["maxReplicaCount"]
