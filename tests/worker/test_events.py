"""Events that the broker does not take."""

import re
from types import SimpleNamespace
from typing import Any

import pytest

from promptmill.producer.job import Job
from promptmill.producer.queue.queue import Claim
from promptmill.worker.events import FIRST_PAUSE_S, JobEvents

JOB = Job(prompt="a", width=64, height=64)
CLAIM = Claim("1-0", JOB.shape, "r", 0, 1, JOB, "/out")


def test_a_broker_that_is_down_is_not_asked_for_each_job_nor_by_all_workers_at_once(caplog: pytest.LogCaptureFixture):
    asked = []

    def refuse() -> Any:
        asked.append(1)
        raise ConnectionRefusedError("down")

    app: Any = SimpleNamespace(connection_for_write=refuse)
    for number in range(10):
        events = JobEvents(app, f"w{number}")
        for _ in range(3):
            events.started(CLAIM)
    assert len(asked) == 10
    pauses = {float(pause_s) for pause_s in re.findall(r"not sent for ([\d.]+) s", caplog.text)}
    assert len(pauses) > 1
    assert all(FIRST_PAUSE_S / 2 <= pause_s <= FIRST_PAUSE_S for pause_s in pauses)
