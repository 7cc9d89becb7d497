"""The network loses what Redis answered: jobs are claimed, and the worker does not know it."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import redis

from promptmill.producer.broker import client_of
from promptmill.producer.job import Job
from promptmill.producer.queue.keys import queue_key
from promptmill.producer.queue.ledger import Ledger
from promptmill.producer.queue.queue import JobQueue
from promptmill.producer.queue.scripts import source
from promptmill.worker.host import Host
from promptmill.worker.in_flight import InFlight
from promptmill.worker.keep import Keeper
from promptmill.worker.observers import Observer
from promptmill.worker.settings import WorkerSettings
from tests.entries import as_entries
from tests.farm import Farm, farm_of
from tests.lossy_wire import LossyWire, lossy_wire

LEASE_S = 30.0  # of which those jobs would stay ten with the worker that does not know of them


@pytest.fixture
def wire(redis_url: str, client: redis.Redis) -> Iterator[LossyWire]:
    client.script_load(source("claim"))  # a script that is known is called by its hash
    with lossy_wire(redis_url) as wire:
        yield wire


@pytest.fixture
def farm(wire: LossyWire, tmp_path: Path) -> Iterator[Farm]:
    with farm_of(wire.url, tmp_path) as farm:
        farm.environ["PROMPTMILL_LEASE_S"] = str(LEASE_S)
        yield farm


@pytest.mark.parametrize("silently", [True, False], ids=["it hangs", "it is cut off"])
def test_jobs_whose_claim_nobody_heard_of_are_given_back_at_the_next_renewal(wire, client, silently):
    jobs = [Job(prompt=f"p{n}", seed=n, width=64, height=64) for n in range(3)]
    Ledger(client).open("r", output="/out", digest="d", jobs=3, images=3, common={})
    JobQueue(client).enqueue("r", 0, 3, as_entries(enumerate(jobs)))
    mine = JobQueue(client_of(wire.url, timeout_s=0.5), "a", lease_s=LEASE_S)
    host = SimpleNamespace(leases=mine, in_flight=InFlight(1), claiming=threading.Lock())
    keeper = Keeper(host)  # type: ignore[arg-type]
    wire.lose_answer("claim", silently=silently)
    with host.in_flight.slot(0) as slot:
        claims = mine.claim(jobs[0].shape, 1)  # redis-py asks again by itself, and gets another job
        host.in_flight.hold(slot, claims)
    assert wire.lost.is_set()
    assert [claim.index for claim in claims] == [1]
    assert client.xpending(queue_key("r", jobs[0].shape), "workers")["pending"] == 2
    keeper._release_unknown()
    assert [claim.index for claim in JobQueue(client, "b").claim(jobs[0].shape, 3)] == [0, 2]
    assert mine.renew(claims) == []


def test_nothing_is_given_back_while_a_claim_is_on_its_way(wire, client):
    jobs = [Job(prompt="p", seed=1, width=64, height=64)]
    Ledger(client).open("r", output="/out", digest="d", jobs=1, images=1, common={})
    JobQueue(client).enqueue("r", 0, 1, as_entries(enumerate(jobs)))
    mine = JobQueue(client, "a", lease_s=LEASE_S)
    host = SimpleNamespace(leases=mine, in_flight=InFlight(1), claiming=threading.Lock())
    with host.claiming:
        (claim,) = mine.claim(jobs[0].shape, 1)
        Keeper(host)._release_unknown()  # type: ignore[arg-type]
        assert JobQueue(client, "b").claim(jobs[0].shape, 1) == []
    assert mine.renew([claim]) == []


@pytest.mark.slow
def test_a_worker_alone_renders_what_it_never_heard_that_it_had_claimed(farm, wire, tmp_path):
    farm.start_worker()
    farm.wait_until_ready(0)
    wire.lose_answer("claim", silently=False)
    farm.submit([f"prompt {n}" for n in range(6)], str(tmp_path), "r", "--steps", "2")
    run = farm.wait_until_finished("r", timeout_s=8 * LEASE_S)
    assert wire.lost.is_set()
    assert (run["done"], run["failed"]) == (6, 0)
    assert "whose claim was never answered" in farm.log(0)


def test_a_renewal_that_hangs_is_asked_again_before_the_lease_is_over(wire, client):
    lease_s = 6.0
    jobs = [Job(prompt="p", seed=1, width=64, height=64)]
    Ledger(client).open("r", output="/out", digest="d", jobs=1, images=1, common={})
    JobQueue(client).enqueue("r", 0, 1, as_entries(enumerate(jobs)))
    client.script_load(source("renew"))
    worker = SimpleNamespace(hostname="w", pool=None)
    host = Host(WorkerSettings(broker=wire.url, lease_s=lease_s), worker, Observer())
    with host.in_flight.slot(0) as slot:
        assert slot is not None
        (claim,) = host.claim(jobs[0].shape, 1, slot, pass_over=())
        wire.lose_answer("renew", silently=True)
        started = time.monotonic()
        Keeper(host)._renew()
        assert wire.lost.is_set()
        assert time.monotonic() - started < lease_s, "with the worker's other clients it takes 30 s"
        assert JobQueue(client, "b", lease_s=lease_s).claim(claim.shape, 1) == []
