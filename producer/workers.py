"""The workers as Redis sees them: each says every few seconds that it is there and what it does.

promptmill:workers   hash   worker name -> JSON of a WorkerReport; a report older than STALE_S counts as gone
"""

import dataclasses
import json
import time
from dataclasses import dataclass
from typing import Any

import redis

from producer.job import canonical_json

WORKERS = "promptmill:workers"
REPORT_EVERY_S = 2.0
STALE_S = 15.0


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What a worker says of itself. `state` is starting, compiling, ready, rendering or draining."""

    name: str
    state: str
    platform: str = ""
    devices: int = 0
    shape: str = ""
    images: int = 0
    images_per_s: float = 0.0
    problem: str = ""
    at: float = 0.0  # seconds since the epoch


class Workers:
    """The reports in one Redis."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis: Any = client  # redis-py types every answer as "or awaitable"

    def report(self, report: WorkerReport) -> None:
        stamped = dataclasses.replace(report, at=time.time())
        self._redis.hset(WORKERS, report.name, canonical_json(dataclasses.asdict(stamped)))

    def leave(self, name: str) -> None:
        self._redis.hdel(WORKERS, name)

    def alive(self) -> list[WorkerReport]:
        """The workers that reported lately, by name; what is stale is swept."""
        reports = []
        for name, text in sorted(self._redis.hgetall(WORKERS).items()):
            report = WorkerReport(**json.loads(text))
            if time.time() - report.at < STALE_S:
                reports.append(report)
            else:
                self._redis.hdel(WORKERS, name)
        return reports
