"""A job that three workers took and none brought back, where one of them may have written its image before it died."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import redis

from promptmill.producer.job import Job
from promptmill.producer.layout import image_name
from promptmill.producer.outputs.open import open_output
from promptmill.producer.outputs.output import Output
from promptmill.producer.queue.ledger import Ledger
from promptmill.producer.queue.queue import MAX_DELIVERIES, JobQueue
from promptmill.worker.encode import encode_png
from promptmill.worker.host import Host
from promptmill.worker.observers import Observer
from promptmill.worker.settings import WorkerSettings
from tests.entries import as_entries

JOB = Job(prompt="a red apple", seed=0, width=64, height=64)
FILE = encode_png(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8), JOB)


@pytest.fixture
def output(tmp_path: Path, client: redis.Redis) -> Output:
    """Of a run whose one job was taken as often as may be."""
    output = open_output(str(tmp_path / "out"))
    Ledger(client).open("r", output=output.url, digest="d", jobs=1, images=1, common={})
    queue = JobQueue(client, "dead")
    queue.enqueue("r", 0, 1, as_entries(enumerate([JOB])))
    for _ in range(MAX_DELIVERIES):
        claims = queue.claim(JOB.shape, 1)
        assert len(claims) == 1
        queue.release(claims, counted=True)
    return output


def what_a_worker_makes_of_it(redis_url: str, client: redis.Redis) -> tuple[int, int]:
    """How many are done, how many failed."""
    worker: Any = SimpleNamespace(hostname="w@here", pool=None)
    host = Host(WorkerSettings(broker=redis_url), worker, Observer())
    with host.in_flight.slot(1.0) as slot:
        assert slot is not None
        assert host.claim(JOB.shape, 1, slot, pass_over=()) == []
    status = Ledger(client).status("r")
    assert status.finished
    return status.done, status.failed


@pytest.mark.parametrize(
    ("there", "ends"),
    [(FILE, (1, 0)), (FILE[:-20], (0, 1)), (b"", (0, 1)), (None, (0, 1))],
    ids=["whole", "cut off", "empty", "nothing"],
)
def test_it_is_done_where_its_image_is_there(
    output: Output, redis_url: str, client: redis.Redis, there: bytes | None, ends: tuple[int, int]
) -> None:
    if there is not None:
        output.child("r").put_once(image_name(JOB.id), there)
    assert what_a_worker_makes_of_it(redis_url, client) == ends


def test_it_has_failed_where_the_output_does_not_answer(
    output: Output, redis_url: str, client: redis.Redis, tmp_path: Path
) -> None:
    output.child("r").put_once(image_name(JOB.id), FILE)
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    (tmp_path / "out").write_text("a file in its place")
    assert what_a_worker_makes_of_it(redis_url, client) == (0, 1)
