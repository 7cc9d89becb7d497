"""Jobs to claim, and what claims are of."""

import time
from collections.abc import Callable

from promptmill.producer.job import Job
from promptmill.producer.queue.queue import Claim, JobQueue, Ready

LEASE_S = 0.2

Enter = Callable[..., JobQueue]


def some_jobs(count: int, **fields: object) -> list[Job]:
    return [Job(prompt=f"image {n}", seed=n, width=64, height=64, **fields) for n in range(count)]  # type: ignore[arg-type]


def let_leases_run_out() -> None:
    time.sleep(LEASE_S * 1.5)  # the lease is Redis' own clock; there is nothing to await


def indices(claims: list[Claim]) -> list[int]:
    return [claim.index for claim in claims]


def runs(claims: list[Claim]) -> list[str]:
    return [claim.run for claim in claims]


def shapes(ready: list[Ready]) -> list[object]:
    return [one.shape for one in ready]
