"""What stands in for the device, Celery and a plan in a simulated world. All else is the code that ships."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from promptmill.producer.job import Job, Shape
from promptmill.producer.plan import Plan
from promptmill.worker.program import Prepared, Result
from promptmill.worker.programs import Trouble
from tests.plans import plan_of_jobs
from tests.simulation.threads import Process, scheduler

SIDE = 8  # pixels of a rendered image, which is none

BATCH = 2


@cache
def plan_of(run: str, jobs: int) -> Plan:
    """A plan of two shapes. It is read only, and serves all worlds."""
    return plan_of_jobs([Job(prompt=f"{run} {n}", seed=n, width=64 * (1 + n % 3 // 2), height=64) for n in range(jobs)])


class Pool:
    """Celery's pool: a thread for each image."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def apply_async(self, call: Callable[..., Any], args: tuple[Any, ...]) -> None:
        scheduler().spawn(self._process, call, *args)


@dataclass
class CeleryWorker:
    """What a Host needs of one."""

    hostname: str
    pool: Pool


class DeviceWorld:
    """What a program asks of the world."""

    def rendering(self, process: Process, jobs: Sequence[Job]) -> None:
        """A batch is put on the device: may kill the process, or raise."""

    def uniform(self, low: float, high: float) -> float:
        raise NotImplementedError


@dataclass(frozen=True)
class Program:
    """Renders noise, a little other on each worker, in seconds."""

    world: Any
    process: Process
    batch: int = BATCH

    def prepare(self, requests: Sequence[Any]) -> Prepared[Any]:
        return Prepared(list(requests), [{} for _ in requests])

    def run(self, prepared: Prepared[Any]) -> Result:
        self.world.rendering(self.process, prepared.inputs)
        return Result(prepared.inputs, self, self.process.name)


def fetch(result: Any, count: int) -> Result:
    """Wait for the device, as worker.program.fetch does."""
    jobs, program, worker = result
    scheduler().pause(program.world.uniform(*program.world.device_s))
    program.world.rendered(jobs)
    pixels = np.stack([_noise(job, worker) for job in jobs])
    return Result(pixels[:count], np.ones(count, bool), np.zeros(count, bool))


def _noise(job: Job, worker: str) -> Any:
    seed = hashlib.sha256(f"{job.id} {worker}".encode()).digest()
    return np.frombuffer(seed * 6, np.uint8).reshape(SIDE, SIDE, 3)


class Programs:
    """A worker's compiled programs."""

    def __init__(self, world: Any, process: Process, at_hand: bool) -> None:
        self._world, self._process = world, process
        self._at_hand = at_hand
        self._made: set[Shape] = set()

    def __contains__(self, shape: Shape) -> bool:
        return self._at_hand or shape in self._made

    def trouble(self, shape: Shape) -> Trouble:
        return Trouble.NONE if shape in self else Trouble.COMPILE

    def at_hand(self, shape: Shape) -> Program | None:
        return Program(self._world, self._process) if shape in self else None

    def make(self, shape: Shape) -> Program:
        scheduler().pause(self._world.uniform(2.0, 8.0))
        self._made.add(shape)
        return Program(self._world, self._process)

    def halve(self, shape: Shape, program: Program | None = None) -> bool:
        return False

    def per_device(self, shape: Shape) -> int:
        return 1
