"""A job's life as calls."""

from typing import Any

from promptmill.producer.job import Job
from promptmill.producer.queue.queue import Claim
from promptmill.worker.observers import Observer, Observers

JOB = Job(prompt="a", width=64, height=64)
CLAIM = Claim("1-0", JOB.shape, "r", 0, 1, JOB, "/out")


class Broken(Observer):
    def succeeded(self, claim: Claim, url: str, runtime_s: float) -> None:
        raise OSError("no disk for logs")


class Listening(Observer):
    def __init__(self) -> None:
        self.heard: list[Any] = []

    def succeeded(self, claim: Claim, url: str, runtime_s: float) -> None:
        self.heard.append((claim, url, runtime_s))

    def failed(self, claim: Claim, reason: str) -> None:
        self.heard.append((claim, reason))


def test_an_observer_that_fails_harms_nobody():
    listening = Listening()
    observers = Observers([Broken(), listening])
    observers.received(CLAIM)
    observers.succeeded(CLAIM, "/out/a.png", 1.5)
    observers.failed(CLAIM, "NaN")
    assert listening.heard == [(CLAIM, "/out/a.png", 1.5), (CLAIM, "NaN")]
