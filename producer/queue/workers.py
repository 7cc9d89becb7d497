"""The workers as Redis sees them: each says every few seconds that it is there and what it does.

promptmill:workers   hash   worker name -> JSON of a WorkerReport; a report older than STALE_S counts as gone
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import redis

from promptmill.producer.job import canonical_json
from promptmill.producer.queue.keys import WORKERS

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
    problems: Mapping[str, str] = dataclasses.field(default_factory=dict)  # model or output -> what is wrong
    at: float = 0.0  # seconds since the epoch, by Redis' clock: those of the hosts may differ


FIELDS = tuple(field.name for field in dataclasses.fields(WorkerReport))


class Workers:
    """The reports in one Redis."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis: Any = client  # redis-py types every answer as "or awaitable"

    def report(self, report: WorkerReport) -> None:
        stamped = dataclasses.replace(report, at=self._now())
        self._redis.hset(WORKERS, report.name, canonical_json(dataclasses.asdict(stamped)))

    def leave(self, name: str) -> None:
        self._redis.hdel(WORKERS, name)

    def alive(self, *, sweep: bool = True) -> list[WorkerReport]:
        """The workers that reported lately, by name; what is stale is swept, unless nothing may be written."""
        reports = []
        now = self._now()
        for name, text in sorted(self._redis.hgetall(WORKERS).items()):
            said = json.loads(text)
            # A worker of another version may say more than we know.
            report = WorkerReport(**{field: said[field] for field in FIELDS if field in said})
            if now - report.at < STALE_S:
                reports.append(report)
            elif sweep:
                self._redis.hdel(WORKERS, name)
        return reports

    def _now(self) -> float:
        seconds, microseconds = self._redis.time()
        return float(seconds + microseconds / 1e6)
