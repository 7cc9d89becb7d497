"""Failing the jobs of a shape that nobody can render: each once, whoever stops, and beside rendering."""

import threading
from types import SimpleNamespace

import pytest
import redis

from promptmill.producer.job import Job
from promptmill.producer.queue.keys import queue_key
from promptmill.producer.queue.ledger import Ledger
from promptmill.producer.queue.queue import Claim, JobQueue
from promptmill.worker.giving_up import AT_ONCE, GivingUp
from promptmill.worker.host import Host
from promptmill.worker.observers import Observer
from promptmill.worker.settings import WorkerSettings
from tests.entries import as_entries
from tests.farm import wait_until

JOBS = [Job(prompt=f"p{n}", seed=n, width=64, height=64) for n in range(2 * AT_ONCE + 50)]
SHAPE = JOBS[0].shape


class Watcher(Observer):
    """Does `act` when the first job was failed."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        self.act = lambda: None

    def failed(self, claim: Claim, reason: str) -> None:
        self.failures.append(claim.job.id)
        if len(self.failures) == 1:
            self.act()


@pytest.fixture
def watcher(client: redis.Redis) -> Watcher:
    Ledger(client).open("r", output="/out", digest="d", jobs=len(JOBS), images=len(JOBS), common={})
    JobQueue(client).enqueue("r", 0, len(JOBS), as_entries(enumerate(JOBS)))
    return Watcher()


@pytest.fixture
def host(redis_url: str, watcher: Watcher) -> Host:
    settings = WorkerSettings(broker=redis_url, batches_in_flight=1)
    return Host(settings, SimpleNamespace(hostname="w@here", pool=None), watcher)


def giving_up(host: Host) -> GivingUp:
    part = GivingUp(host)
    threading.Thread(target=part.run, daemon=True).start()
    return part


def test_all_jobs_of_the_shape_are_failed_once_and_in_one_go(client, host, watcher):
    part = giving_up(host)
    part.begin(SHAPE, "no model")
    wait_until(lambda: SHAPE not in part, "it has ended")
    assert sorted(watcher.failures) == sorted(job.id for job in JOBS)
    status = Ledger(client).status("r")
    assert (status.failed, status.left, status.state) == (len(JOBS), 0, "finished")
    assert {failure.reason for failure in Ledger(client).failures("r")} == {"no model"}


def test_meanwhile_they_are_held_and_the_slots_are_free_for_what_can_be_rendered(client, host, watcher):
    seen = []

    def look() -> None:
        with host.in_flight.slot(0) as slot:
            seen.append((slot is not None, len(host.in_flight.held())))
        seen.append(client.xpending(queue_key("r", SHAPE), "workers")["pending"])

    watcher.act = look
    part = giving_up(host)
    part.begin(SHAPE, "no model")
    wait_until(lambda: SHAPE not in part, "it has ended")
    assert seen == [(True, AT_ONCE), AT_ONCE], "what is claimed is held, and a failure is told before it is settled"
    assert host.in_flight.held() == []


def test_a_stop_in_the_middle_leaves_nothing_pending(client, host, watcher):
    watcher.act = host.stopping.set
    part = giving_up(host)
    part.begin(SHAPE, "no model")
    wait_until(lambda: SHAPE not in part, "it has ended")
    assert len(watcher.failures) == AT_ONCE
    assert client.xpending(queue_key("r", SHAPE), "workers")["pending"] == 0
    assert Ledger(client).status("r").left == len(JOBS) - AT_ONCE


def test_nothing_is_claimed_while_a_dangerous_program_is_made(host, watcher):
    host.alone.set()
    part = giving_up(host)
    part.begin(SHAPE, "no model")
    assert not host.stopping.wait(0.3)  # a claim would have been there long since
    assert (watcher.failures, host.in_flight.held()) == ([], [])
    host.alone.clear()
    wait_until(lambda: SHAPE not in part, "it has ended")
    assert len(watcher.failures) == len(JOBS)
