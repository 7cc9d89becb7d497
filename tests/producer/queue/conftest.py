"""A run of jobs in the real queue, and its workers."""

from collections.abc import Callable

import pytest
import redis

from promptmill.producer.job import Job
from promptmill.producer.queue.ledger import Ledger
from promptmill.producer.queue.queue import JobQueue
from tests.entries import as_entries, shared_fields
from tests.producer.queue.claiming import LEASE_S, Enter


@pytest.fixture
def enter(client: redis.Redis) -> Enter:
    def enter(jobs: list[Job], run: str = "r", present: tuple[int, ...] = (), priority: str = "normal") -> JobQueue:
        common = shared_fields(jobs) if len(jobs) > 1 else {}
        Ledger(client).open(
            run, output="/out", digest="d", jobs=len(jobs), images=len(jobs), common=common, priority=priority
        )
        queue = JobQueue(client)
        missing = [(index, job) for index, job in enumerate(jobs) if index not in present]
        assert queue.enqueue(run, 0, len(jobs), as_entries(missing, common), present) == len(jobs)
        return queue

    return enter


@pytest.fixture
def worker(client: redis.Redis) -> Callable[[str], JobQueue]:
    return lambda name: JobQueue(client, name, lease_s=LEASE_S)
