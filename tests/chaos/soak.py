"""Real workers, a real Redis and a real folder, and whatever may befall them, for as long as you say.

    python -m tests.chaos.soak --minutes 60 --seed 1      prints a report as JSON, and exits with 1 where a job is lost

Runs are submitted one after the other. About once a second a worker that is at work is killed; now and then one is
stopped for longer than its lease or told to end, and Redis is killed and started again, wiped, or full.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from promptmill.producer.broker import client_of
from promptmill.producer.errors import PromptmillError
from promptmill.producer.job import Job
from promptmill.producer.layout import Look, image_name, look_inside
from promptmill.producer.models import resolve_model
from promptmill.producer.outputs.open import open_output
from promptmill.producer.queue.ledger import Ledger, RunStatus
from promptmill.producer.submit import resume, submit
from tests.mortal_redis import MortalRedis
from tests.plans import plan_of_jobs

LEASE_S = 3.0
TICK_S = 0.25


@dataclass
class Report:
    """What a soak injected, and what came of it."""

    minutes: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    jobs: int = 0
    images: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    lost: int = 0
    doubled: int = 0
    broken: int = 0
    rendered: int = 0
    rendered_again: int = 0
    after_sigkill_s: list[float] = field(default_factory=list)
    """From the death of a worker until another began a job that the dead one had begun and not finished."""
    after_sigterm_s: list[float] = field(default_factory=list)
    """From the signal until another worker began a job."""

    def told(self) -> dict[str, Any]:
        times = {"sigkill_to_next_s": self.after_sigkill_s, "sigterm_to_next_s": self.after_sigterm_s}
        plain = {name: value for name, value in vars(self).items() if not name.startswith("after")}
        return {**plain, "faults": dict(self.faults), **{name: _spread(found) for name, found in times.items()}}


def _spread(seconds: list[float]) -> dict[str, float]:
    if not seconds:
        return {}
    ranked = sorted(seconds)
    return {
        "times": len(ranked),
        "median": round(statistics.median(ranked), 2),
        "p99": round(ranked[int(0.99 * (len(ranked) - 1))], 2),
        "most": round(ranked[-1], 2),
    }


class Workers:
    """Starts workers; knows those that live."""

    def __init__(self, environ: dict[str, str], log: Path) -> None:
        self._environ, self._log = environ, log.open("ab")
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        name = f"w{len(self._started)}@soak"
        options = ["-A", "tests.chaos.soak_worker", "worker", "--pool", "threads", "-l", "WARNING", "-n", name]
        command = [sys.executable, "-m", "celery", *options]
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": self._log, "stderr": self._log}
        self._started.append(subprocess.Popen(command, env=self._environ, **pipes))

    def living(self) -> list[int]:
        return [worker.pid for worker in self._started if worker.poll() is None]

    def close(self) -> None:
        for worker in self._started:
            if worker.poll() is None:
                worker.kill()
                worker.wait()
        self._log.close()


class Soak:
    """One soak, in a folder of its own."""

    def __init__(self, folder: Path, seed: int, workers: int, jobs: int) -> None:
        self.chance = random.Random(seed)
        self.folder, self.workers, self.jobs_per_run = folder, workers, jobs
        self.report = Report()
        self.redis = MortalRedis(folder)
        self.redis.start()
        self.client = client_of(self.redis.url, timeout_s=5.0)
        self.begun = folder / "begun.log"
        self.begun.touch()
        environ = {
            **os.environ,
            "PROMPTMILL_BROKER": self.redis.url,
            "PROMPTMILL_MODEL": "tiny-random",
            "PROMPTMILL_LEASE_S": str(LEASE_S),
            "PROMPTMILL_DRAIN": "2",
            "PROMPTMILL_SOAK_LOG": str(self.begun),
            "XLA_FLAGS": "",
        }
        self.farm = Workers(environ, folder / "workers.log")
        self.deaths: list[tuple[float, int]] = []
        self.ends: list[tuple[float, int]] = []
        self.resumes: list[tuple[float, Callable[[], None]]] = []
        self.output = open_output(str(folder / "out"))
        self.output.check()

    # Faults.

    def sigkill(self) -> None:
        """A worker that is at work: killing one that still starts would show nothing."""
        at_work = [pid for pid in self.farm.living() if pid in self._seen()]
        if at_work:
            pid = self.chance.choice(at_work)
            os.kill(pid, signal.SIGKILL)
            self.deaths.append((time.time(), pid))
            self.report.faults["SIGKILL"] += 1

    def sigstop(self) -> None:
        if living := self.farm.living():
            pid = self.chance.choice(living)
            os.kill(pid, signal.SIGSTOP)
            self.report.faults["SIGSTOP beyond the lease"] += 1
            self.later(2 * LEASE_S, lambda: _signal(pid, signal.SIGCONT))

    def sigterm(self) -> None:
        if living := [pid for pid in self.farm.living() if pid in self._seen()]:
            pid = self.chance.choice(living)
            os.kill(pid, signal.SIGTERM)
            self.ends.append((time.time(), pid))
            self.report.faults["SIGTERM"] += 1

    def crash(self) -> None:
        self.redis.kill()
        self.report.faults["Redis killed"] += 1
        time.sleep(self.chance.uniform(0, 1))
        self.redis.start()

    def wipe(self) -> None:
        with contextlib.suppress(redis.RedisError):
            self.client.flushall()
            self.report.faults["Redis wiped"] += 1

    def fill(self) -> None:
        with contextlib.suppress(redis.RedisError):
            self.client.config_set("maxmemory", "1")
            self.report.faults["Redis full"] += 1
            self.later(2.0, self._empty)

    def _empty(self) -> None:
        with contextlib.suppress(redis.RedisError):
            self.client.config_set("maxmemory", "0")

    def later(self, after_s: float, call: Callable[[], None]) -> None:
        self.resumes.append((time.monotonic() + after_s, call))

    def _seen(self) -> set[int]:
        """The workers that have begun a job."""
        return {int(line.split()[1]) for line in self._tail().splitlines() if line.count(" ") == 2}

    def _tail(self, size: int = 20_000) -> str:
        with self.begun.open("rb") as file:
            file.seek(max(0, self.begun.stat().st_size - size))
            return file.read().decode().partition("\n")[2]

    # The course of it.

    def go(self, minutes: float) -> Report:
        started = time.monotonic()
        end = started + 60 * minutes
        while time.monotonic() < end:
            self._run(f"r{self.report.runs}", end)
        self.report.minutes = round((time.monotonic() - started) / 60, 1)
        self._measure()
        return self.report

    def _run(self, run: str, end: float) -> None:
        model = resolve_model("tiny-random")
        jobs = [
            Job(prompt=f"{run} {n}", seed=n, width=64, height=64, num_inference_steps=2, model=model)
            for n in range(self.jobs_per_run)
        ]
        with plan_of_jobs(jobs) as plan:
            _patiently(lambda: submit(plan, output=self.output, run=run, client=self.client))
        faults = self._faults()
        while not self._finished(run):
            self._tick()
            if time.monotonic() < end:
                next(faults)
        self._check(run, [str(job.id) for job in jobs])

    def _tick(self) -> None:
        now = time.monotonic()
        due = [call for at, call in self.resumes if at <= now]
        self.resumes = [one for one in self.resumes if one[0] > now]
        for call in due:
            call()
        while len(self.farm.living()) < self.workers:
            self.farm.start()
        time.sleep(TICK_S)

    def _faults(self) -> Iterator[None]:
        """One tick's."""
        rates = {
            self.sigkill: 1.0, self.sigstop: 0.05, self.sigterm: 0.1,
            self.crash: 0.1, self.wipe: 0.01, self.fill: 0.03,
        }  # fmt: skip
        while True:
            for fault, per_s in rates.items():
                if self.chance.random() < per_s * TICK_S:
                    fault()
            yield

    def _finished(self, run: str) -> bool:
        try:
            status = Ledger(self.client).status(run)
        except redis.RedisError:
            return False
        except PromptmillError:  # it was wiped, or lost its last second
            with contextlib.suppress(PromptmillError, redis.RedisError):
                resume(self.output, run, self.client)
            return False
        if status.enqueued < status.jobs:
            with contextlib.suppress(PromptmillError, redis.RedisError):
                resume(self.output, run, self.client)
        return status.finished and status.enqueued == status.jobs

    def _check(self, run: str, ids: list[str]) -> None:
        """Each job has its image or its reason, and no image is anybody else's."""
        status: RunStatus = _patiently(lambda: Ledger(self.client).status(run))
        failures = _patiently(lambda: list(Ledger(self.client).failures(run)))
        output, failed = self.output.child(run), {failure.id for failure in failures}
        names = list(output.list("images/"))
        for job_id in ids:
            name = image_name(job_id)  # type: ignore[arg-type]
            if name in names:
                data = output.get(name)
                whole = look_inside(job_id, len(data), lambda at, n, data=data: data[at:][:n])  # type: ignore
                self.report.broken += whole is not Look.OURS
            elif job_id not in failed:
                self.report.lost += 1
        report = self.report
        report.doubled += len(names) - len(set(names)) + max(0, status.done + status.failed - len(ids))
        report.runs += 1
        report.jobs += len(ids)
        report.images += len(names)
        for failure in failures:
            reason = failure.reason
            report.failed[reason] = report.failed.get(reason, 0) + 1

    def _measure(self) -> None:
        """From what was begun, how often and when."""
        begun: dict[str, list[tuple[float, int]]] = defaultdict(list)
        for line in self.begun.read_text().splitlines():
            began, who_began, job_id = line.split()
            begun[job_id].append((float(began), int(who_began)))
        self.report.rendered = sum(map(len, begun.values()))
        self.report.rendered_again = self.report.rendered - len(begun)
        for died, pid in self.deaths:
            for times in begun.values():
                mine = [at for at, who in times if who == pid and at < died]
                after = [at for at, who in times if who != pid and at > died]
                if mine and after:
                    self.report.after_sigkill_s.append(min(after) - died)
        starts = sorted((at, pid) for times in begun.values() for at, pid in times)
        for told, pid in self.ends:
            if after := [at for at, who in starts if at > told and who != pid]:
                self.report.after_sigterm_s.append(after[0] - told)

    def close(self) -> None:
        self.farm.close()
        with contextlib.suppress(ProcessLookupError):
            self.redis.kill()


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _patiently(call: Callable[[], Any]) -> Any:
    while True:
        try:
            return call()
        except (redis.RedisError, PromptmillError):
            time.sleep(0.2)


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.chaos.soak")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=200, help="of each run")
    parser.add_argument("--folder", type=Path, help="kept; by default a temporary one")
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="promptmill-soak-")))
        folder.mkdir(parents=True, exist_ok=True)
        soak = Soak(folder, given.seed, given.workers, given.jobs)
        stack.callback(soak.close)
        report = soak.go(given.minutes)
    print(json.dumps(report.told(), indent=2))
    return int(bool(report.lost or report.doubled or report.broken))


if __name__ == "__main__":
    sys.exit(main())
