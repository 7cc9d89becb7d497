"""The workers as Redis sees them: each says every few seconds that it is there and what it does.

promptmill:workers   hash   worker name -> JSON of a WorkerReport; a report older than STALE_S counts as gone

What workers leave behind that are killed is swept by those that live: see `Workers.sweep`.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import redis

from promptmill.producer.job import canonical_json
from promptmill.producer.queue.keys import WORKERS
from promptmill.producer.queue.scripts import Script

REPORT_EVERY_S = 2.0
STALE_S = 15.0


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What a worker says of itself. `state` is starting, compiling, ready, rendering, paused or draining."""

    name: str
    state: str
    platform: str = ""
    devices: int = 0
    shape: str = ""
    images: int = 0
    images_per_s: float = 0.0
    problems: Mapping[str, str] = dataclasses.field(default_factory=dict)  # model or output -> what is wrong
    compiling: str = ""  # the key of the shape whose program is loaded or compiled now, also beside rendering
    compiling_s: float = 0.0  # for how long
    at: float = 0.0  # seconds since the epoch, by Redis' clock: those of the hosts may differ


KINDS: Mapping[type, Any] = {str: str, int: int, float: int | float, dict: dict}
"""Of a report's fields: the type of the default, and what a worker may say."""

FIELDS = tuple(field.name for field in dataclasses.fields(WorkerReport))


class Workers:
    """The reports in one Redis."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis: Any = client  # redis-py types every answer as "or awaitable"
        self._sweep = Script(client, "sweep_workers")

    def report(self, report: WorkerReport) -> None:
        stamped = dataclasses.replace(report, at=self._now())
        self._redis.hset(WORKERS, report.name, canonical_json(dataclasses.asdict(stamped)))

    def leave(self, name: str) -> None:
        self._redis.hdel(WORKERS, name)

    def alive(self) -> list[WorkerReport]:
        """The workers that reported lately, by name. A report that cannot be read is passed over."""
        now = self._now()
        reports = [_report_of(text) for _, text in sorted(self._redis.hgetall(WORKERS).items())]
        return [report for report in reports if report and now - report.at < STALE_S]

    def sweep(self, lease_s: float) -> bool:
        """Take out what dead workers left behind, at most once per lease: False where somebody did so lately.

        That is a consumer that holds nothing and did nothing for two leases, and a report that is stale. What a dead
        worker held is claimed by others first.
        """
        lease_ms = int(1000 * lease_s)
        return bool(self._sweep(2 * lease_ms, int(1000 * STALE_S), lease_ms))

    def _now(self) -> float:
        seconds, microseconds = self._redis.time()
        return float(seconds + microseconds / 1e6)


def _report_of(text: str) -> WorkerReport | None:
    """What a worker said; None where it cannot be read. A worker of another version may say more than we know."""
    try:
        said = json.loads(text)
        json.dumps(said, ensure_ascii=False).encode()  # half a character cannot be shown
        report = WorkerReport(**{field: said[field] for field in FIELDS if field in said})
    except (ValueError, TypeError, RecursionError):
        return None
    return report if _is_sound(report) else None


def _is_sound(report: WorkerReport) -> bool:
    """Whether each value is of its field's kind, and each number one."""
    model = WorkerReport("", "")
    pairs = [(getattr(report, field), getattr(model, field)) for field in FIELDS]
    fit = all(isinstance(value, KINDS[type(usual)]) for value, usual in pairs)
    return fit and all(0 <= value < math.inf for value, usual in pairs if type(usual) in (int, float))
