"""A farm under one seed: Redis, a bucket, workers and people, what befalls them, and what must hold at every step."""

import hashlib
import json
import logging
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import redis

from promptmill.producer.errors import PromptmillError
from promptmill.producer.job import Job
from promptmill.producer.layout import image_name
from promptmill.producer.queue import scripts
from promptmill.producer.queue.keys import failures_key
from promptmill.producer.queue.queue import MAX_DELIVERIES
from promptmill.worker.checks import Checks
from promptmill.worker.compiler import Compiler
from promptmill.worker.encode import encode_png
from promptmill.worker.fetch import Fetcher
from promptmill.worker.host import Host
from promptmill.worker.keep import Keeper
from promptmill.worker.observers import Observer
from promptmill.worker.pull import Puller
from promptmill.worker.settings import WorkerSettings
from tests.simulation import parts
from tests.simulation.bucket import Store
from tests.simulation.faults import BUCKET_FATES, REDIS_FATES, Fate, Faults
from tests.simulation.invariants import Invariants
from tests.simulation.server import VirtualRedis
from tests.simulation.threads import Killed, Process, Scheduler

logger = logging.getLogger(__name__)

BUCKET = "bucket"
OUTPUT = f"gs://{BUCKET}/out"
LEASE_S = 6.0
DRAIN_S = 4.0


class SimulatedPuller(Puller):
    """The puller, ready without JAX."""

    programs: Any

    def _get_ready(self) -> None:
        host: Any = self._host
        self._checks = Checks({})
        host.programs = self.programs
        self._compiler = Compiler(host)
        for part in (self._compiler, self._giving_up):
            host.scheduler.spawn(host.process, part.run)
        host.report.phase("ready")


class Worker(Process):
    """A worker process: its host's threads, as worker/bootstep.py starts them."""

    host: Any

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.host = None

    def begin(self, world: "World") -> None:
        settings = WorkerSettings(broker=world.server.url, lease_s=LEASE_S, batches_in_flight=2)
        host: Any = Host(settings, parts.CeleryWorker(self.name, parts.Pool(self)), Observer())
        host.scheduler, host.process, host.is_paused = world.scheduler, self, lambda: False
        puller = SimulatedPuller(host)
        puller.programs = parts.Programs(world, self, not world.faults.slow_start)
        self.host = host
        for part in (puller, Fetcher(host), Keeper(host)):
            world.scheduler.spawn(self, part.run)

    def claims(self) -> list[Any]:
        """What it holds, by its own memory."""
        return [held.claim for held in self.host.in_flight._held.values()] if self.host else []


class World:
    """One seed's. `trace` keeps what happened."""

    def __init__(self, seed: int, faults: Faults, server: VirtualRedis, runs: Sequence[tuple[str, int]]) -> None:
        self.seed, self.faults, self.server = seed, faults, server
        self.chance = random.Random(f"world {seed}")
        random.seed(f"library {seed}")
        self.scheduler = Scheduler.now_running = Scheduler(seed)
        self.plans = {run: parts.plan_of(run, jobs) for run, jobs in runs}
        self.plan_ids = {run: [str(job.id) for job in plan] for run, plan in self.plans.items()}
        self.jobs = {job_id: (run, index) for run, ids in self.plan_ids.items() for index, job_id in enumerate(ids)}
        self.device_s = (0.5, 3.0) if self.chance.random() < 0.7 else (LEASE_S / 2, 2 * LEASE_S)
        self.store = Store(BUCKET)
        self.redis_up, self.redis_lives, self.jump_s = True, 0, 0.0
        self.kept_at = 0.0
        self.trace: list[str] = []
        self.calm = False
        self.workers: list[Worker] = []
        self.submitters: dict[str, Process] = {}
        self.others: list[Process] = []
        self.look_again_at = 0.0
        self.requests: Counter[str] = Counter()
        self.poison, self.cursed = self._some(faults.poison), self._some(faults.cursed)
        self.killed_by: Counter[str] = Counter()
        server.wipe()
        server.raw.script_flush()
        server.set_clock(0.0)
        server.keep()
        self.invariants = Invariants(self)
        self.store.on_write = self.invariants.written
        self._squat()

    # Chance.

    def uniform(self, low: float, high: float) -> float:
        return self.chance.uniform(low, high)

    def _some(self, share: float) -> set[str]:
        return {job for job in self.jobs if self.chance.random() < share}

    def redis_fate(self, process: Process) -> Fate:
        self.requests["redis"] += 1
        return self._fate(process, self.faults.redis, REDIS_FATES)

    def bucket_fate(self, process: Process) -> Fate:
        self.requests["bucket"] += 1
        return self._fate(process, self.faults.bucket, BUCKET_FATES)

    def _fate(self, process: Process, rate: float, fates: Sequence[Fate]) -> Fate:
        if self.calm or self.chance.random() >= rate:
            return Fate.FINE
        fate = self.chance.choice(fates)
        self.tell(f"{process.name}: a request is {fate.value}")
        self.invariants.excuse_held(process)
        return fate

    # What the parts of the world ask.

    def tell(self, text: str) -> None:
        # The folder of this process's Redis is none of the seed's.
        self.trace.append(f"{self.scheduler.now:8.3f} {text.replace(str(self.server.socket), 'redis')}")

    def sync_clock(self) -> None:
        self.server.set_clock(self.scheduler.now + self.jump_s)

    def arrives_late(self, process: Process) -> None:
        self.tell(f"{process.name}: a request arrives late")
        self.invariants.excuse_held(process)

    def redis_asked(self, request: bytes) -> str | None:
        """A request reaches Redis. Returns the script that it runs, if that can change anything."""
        self.sync_clock()
        script = _script_in(request)
        if script == "cancel":  # perhaps long after somebody asked for it
            self.excuse_all()
            self.invariants.forgotten()
        return script

    def redis_answered(self, process: Process, script: str | None) -> None:
        if script:
            self.server.changed()
            self.tell(f"{process.name}: {script}")
            self.invariants.check(script)

    def rendering(self, process: Process, jobs: Sequence[Job]) -> None:
        self.invariants.rendering([str(job.id) for job in jobs])
        self.tell(f"{process.name}: renders {[self.jobs[str(job.id)] for job in jobs]}")
        for job in jobs:
            if str(job.id) in self.poison:
                self.killed_by[str(job.id)] += 1
                self.kill(process)
                raise Killed

    def rendered(self, jobs: Sequence[Job]) -> None:
        if any(str(job.id) in self.cursed for job in jobs):
            self.invariants.excuse(str(job.id) for job in jobs if str(job.id) not in self.cursed)
            raise RuntimeError("simulated: the device failed")

    # Faults.

    def kill(self, process: Process) -> None:
        self.tell(f"{process.name}: killed")
        self.invariants.excuse_held(process)
        self.scheduler.kill(process)

    def living(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.alive]

    def start_worker(self) -> None:
        worker = Worker(f"w{len(self.workers)}")
        self.workers.append(worker)
        self.tell(f"{worker.name}: starts")
        self.scheduler.spawn(worker, worker.begin, self)

    def terminate(self, worker: Worker) -> None:
        """SIGTERM: it drains, gives back, and is gone."""
        if worker.host is None or worker.host.stopping.is_set():
            return
        self.tell(f"{worker.name}: told to stop")
        self.invariants.excuse_held(worker)

        def stop() -> None:
            worker.host.stop(DRAIN_S)
            self.tell(f"{worker.name}: has stopped")
            self.invariants.excuse_held(worker)
            worker.alive = False

        self.scheduler.spawn(worker, stop)

    def excuse_all(self) -> None:
        for worker in self.living():
            self.invariants.excuse_held(worker)

    def act(self, what: str, deed: Callable[[], object]) -> None:
        """A person does something, in a process of its own. What goes wrong is told to nobody else."""
        process = Process(what)
        self.others.append(process)

        def work() -> None:
            try:
                deed()
            except (PromptmillError, redis.RedisError) as error:
                self.tell(f"{what}: {error}")

        self.tell(what)
        self.scheduler.spawn(process, work)

    def crash_redis(self, down_s: float) -> None:
        """It is killed, and comes back with what was on its disk at the last `keep`."""
        self.tell(f"Redis crashes, for {down_s:.1f} s")
        before = self.invariants.settled()
        self.redis_up = False
        self.redis_lives += 1
        self.excuse_all()

        def back() -> None:
            self.scheduler.pause(down_s)
            self.sync_clock()
            self.server.restart()
            self.excuse_all()
            self.invariants.restarted(before)
            self.redis_up = True
            self.tell("Redis is back")
            self.invariants.check()

        self.scheduler.spawn(Process("redis"), back)

    def wipe_redis(self) -> None:
        self.tell("Redis is wiped")
        before = self.invariants.settled()
        self.excuse_all()
        self.server.wipe()
        self.server.keep()
        self.invariants.restarted(before)
        self.invariants.check()

    def jump(self, seconds: float) -> None:
        self.tell(f"Redis' clock jumps by {seconds:.1f} s")
        self.jump_s += seconds
        self.excuse_all()

    def _squat(self) -> None:
        """Something lies already where an image will go."""
        for job_id in sorted(self._some(self.faults.squatters)):
            run, index = self.jobs[job_id]
            mine, other = self.job_of(job_id), Job(prompt="somebody else's", seed=1, width=64, height=64)
            kind = self.chance.choice(["cut off", "empty", "another job's"])
            data = {
                "cut off": encode_png(parts._noise(mine, "x"), mine)[:-20],
                "empty": b"",
                "another job's": encode_png(parts._noise(other, "x"), other),
            }[kind]
            self.invariants.squatted(job_id, foreign=kind == "another job's")
            self.tell(f"{run}/{index}: {kind} lies at its name")
            self.store.put(self.name_of(job_id), data)

    def name_of(self, job_id: str) -> str:
        return f"out/{self.jobs[job_id][0]}/{image_name(job_id)}"  # type: ignore[arg-type]

    def job_of(self, job_id: str) -> Job:
        run, index = self.jobs[job_id]
        return next(self.plans[run].whole(job) for job in self.plans[run].at([index]))

    def tries_of(self, job_id: str) -> int:
        """How often a job is tried that nothing befalls but itself."""
        return MAX_DELIVERIES if job_id in self.poison | self.cursed else 1

    def reason(self, run: str, index: int) -> str:
        text = self.server.raw.hget(failures_key(run), index)
        return str(json.loads(text)["reason"]) if text else "for no reason"

    def may_fail(self, job_id: str) -> bool:
        """Whether the job failed for a reason that there was."""
        reason = self.reason(*self.jobs[job_id])
        return any(text in reason and is_so(self, job_id) for text, is_so in REASONS.items())


REASONS: dict[str, Callable[[World, str], object]] = {
    "workers took it and none came back": lambda world, job_id: world.invariants.unlucky(job_id),
    "the device failed": lambda world, job_id: job_id in world.cursed,
    "is taken by something else": lambda world, job_id: world.invariants.is_foreign(job_id),
    "the output takes other images": lambda world, job_id: world.faults.bucket,
    "while they loaded or compiled": lambda world, job_id: world.faults.slow_start,
}
"""Why a job may fail, and where that can be."""

_NAMES: dict[bytes, str] = {}
_TEXTS: dict[bytes, str] = {}


def _script_in(request: bytes) -> str | None:
    """The name of the script that a request runs, if it can change anything."""
    if b"EVAL" not in request[:40]:
        return None
    if not _NAMES:
        _NAMES.update({hashlib.sha1(scripts.source(name).encode()).hexdigest().encode(): name for name in CHANGING})
        _TEXTS.update({scripts.source(name).encode(): name for name in CHANGING})
    if b"EVALSHA" in request[:40]:
        return next((name for sha, name in _NAMES.items() if sha in request), None)
    return next((name for text, name in _TEXTS.items() if text in request), None)


def forget_scripts() -> None:
    """The scripts are others from now on."""
    _NAMES.clear()
    _TEXTS.clear()


# Renewing, releasing and leaving change who holds a job, and neither bits nor counts nor streams.
CHANGING = (*("enqueue", "reenter", "claim", "settle", "open", "grow", "cancel", "change", "purge", "set_aside"),)
