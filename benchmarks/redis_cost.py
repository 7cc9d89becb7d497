"""What a job, and a worker that waits, cost Redis by its own counters: operations, bytes, the time of its one thread.

    python -m benchmarks.redis_cost [--jobs 20000] [--seconds 10] [--real] [--write docs/scaling.md]

Threads do what workers do, with the code that workers have for it (producer/queue), and no JAX: `claimable`, `claim`,
`done` while there are jobs; looks and reports while there are none. `--real` adds a real worker with the model
tiny-random, whose traffic has Celery's own in it. Counters are those of INFO, before and after; calls are all commands,
those inside of scripts too.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import redis

from benchmarks.report import circumstances, table, write_section
from benchmarks.submit import prompts
from promptmill.embedded import embedded_server
from promptmill.producer.broker import connect
from promptmill.producer.job import Job
from promptmill.producer.outputs.folder import Folder
from promptmill.producer.plan import PlanOptions, plan_run
from promptmill.producer.queue.control import pause
from promptmill.producer.queue.ledger import Ledger
from promptmill.producer.queue.queue import JobQueue
from promptmill.producer.queue.workers import REPORT_EVERY_S, WorkerReport, Workers
from promptmill.producer.submit import submit

BATCH = 8  # jobs a claim: a host of eight devices with one image each
IDLE_WORKERS = 16
LOOK_S = 0.1  # worker/pull.py's IDLE_S: between two looks for work
MANY_RUNS = 1000
MANY_SHAPES = 32
REAL_JOBS = 400
OURS = 1  # connections of the benchmark itself


@dataclass(frozen=True)
class Cost:
    """Of one job, or of one worker and second. CPU is of Redis' main thread."""

    calls: float
    bytes_in: float
    bytes_out: float
    cpu_us: float
    kept_bytes: float = 0.0  # of memory

    def over(self, count: float) -> "Cost":
        return Cost(**{name: value / count for name, value in asdict(self).items()})


@dataclass(frozen=True)
class Costs:
    """All that is measured. What is of a worker is per second; what is of a job, per job."""

    enqueue: Cost
    render: Cost
    idle: Cost
    idle_many_runs: Cost
    idle_many_shapes: Cost
    real: Cost | None = None  # as render, of a real worker

    @classmethod
    def of_json(cls, text: str) -> "Costs":
        return cls(**{name: Cost(**told) for name, told in json.loads(text).items() if told})


@dataclass
class Counted:
    cost: Cost | None = None
    by_command: dict[str, int] | None = None


@contextlib.contextmanager
def counted(client: redis.Redis) -> Iterator[Counted]:
    """What Redis did meanwhile, by its counters; the look at them is in it."""
    result, before = Counted(), _counters(client)
    yield result
    after = _counters(client)
    spent = {name: after[name] - before[name] for name in before if name != "commands"}
    result.cost = Cost(**spent)
    changed = {name: after["commands"][name] - before["commands"].get(name, 0) for name in after["commands"]}
    result.by_command = {name: number for name, number in changed.items() if number}


def _counters(client: redis.Redis) -> dict[str, Any]:
    info: Any = client.info("everything")
    commands = {
        name.removeprefix("cmdstat_"): told["calls"] for name, told in info.items() if name.startswith("cmdstat_")
    }
    thread = [info.get(f"used_cpu_{kind}_main_thread", info[f"used_cpu_{kind}"]) for kind in ("user", "sys")]
    return {
        "calls": sum(commands.values()),
        "bytes_in": info["total_net_input_bytes"],
        "bytes_out": info["total_net_output_bytes"],
        "cpu_us": 1e6 * sum(thread),
        "kept_bytes": info["used_memory"],
        "commands": commands,
    }


def enqueued(client: redis.Redis, folder: Path, jobs: int) -> Cost:
    """A job's cost on its way in, as `promptmill submit` brings it."""
    file = folder / "prompts.txt"
    file.write_text("\n".join(prompts(jobs)))
    with plan_run([str(file)], PlanOptions({})) as plan, counted(client) as found:
        submit(plan, output=Folder(folder), run="measured", client=client)
    assert found.cost
    return found.cost.over(jobs)


def rendered(broker: str, jobs: int, workers: int = 4) -> Cost:
    """A job's cost on its way through workers that render in no time."""

    def work(name: str) -> None:
        queue = JobQueue(connect(broker), name)
        while ready := queue.claimable():
            for claim in queue.claim(ready[0].shape, BATCH):
                queue.done(claim)

    with counted(connect(broker)) as found:
        _in_threads(workers, work)
    assert found.cost
    return found.cost.over(jobs)


def idle(broker: str, seconds: float, workers: int = IDLE_WORKERS) -> Cost:
    """A worker's cost per second while it finds nothing that it could render."""

    def wait(name: str) -> None:
        client = connect(broker)
        queue, reports, end, reported = JobQueue(client, name), Workers(client), time.monotonic() + seconds, 0.0
        while (now := time.monotonic()) < end:
            queue.claimable()
            if now - reported > REPORT_EVERY_S:
                reports.report(WorkerReport(name, "ready", "tpu", 8))
                reported = now
            time.sleep(LOOK_S)

    with counted(connect(broker)) as found:
        _in_threads(workers, wait)
    assert found.cost
    return found.cost.over(workers * seconds)


def _in_threads(count: int, work: Callable[[str], None]) -> None:
    threads = [threading.Thread(target=work, args=(f"worker-{number}",)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _fill(client: redis.Redis, runs: int, shapes: int) -> None:
    """Runs of one job per shape."""
    ledger, queue = Ledger(client), JobQueue(client)
    jobs = [Job(prompt="x", width=64 + 8 * number, height=64) for number in range(shapes)]
    entries = [(index, job.shape.key, json.dumps({"prompt": "x"})) for index, job in enumerate(jobs)]
    for number in range(runs):
        run = f"run-{number}"
        ledger.open(run, output="/out", digest=run, jobs=shapes, images=shapes, common={})
        queue.enqueue(run, 0, shapes, entries)


def measure(jobs: int, seconds: float) -> Costs:
    """All costs, each in a Redis of its own."""
    with tempfile.TemporaryDirectory() as folder:
        with embedded_server() as server:
            way_in = enqueued(connect(server.url), Path(folder), jobs)
            way_through = rendered(server.url, jobs)
        with embedded_server() as server:
            nothing = idle(server.url, seconds)
        with embedded_server() as server:
            client = connect(server.url)
            _fill(client, MANY_RUNS, 1)
            for number in range(MANY_RUNS):
                pause(client, f"run-{number}")
            many_runs = idle(server.url, seconds)
        with embedded_server() as server:
            _fill(connect(server.url), 1, MANY_SHAPES)
            many_shapes = idle(server.url, seconds)
    return Costs(way_in, way_through, nothing, many_runs, many_shapes)


@dataclass(frozen=True)
class Real:
    """A real worker's costs: of a job, of a second without jobs; its most frequent commands per job; connections."""

    job: Cost
    idle_second: Cost
    commands: dict[str, float]
    connections: int


def real_worker(seconds: float) -> Real:
    """`promptmill worker` with tiny-random, all of whose traffic is counted."""
    with embedded_server() as server, tempfile.TemporaryDirectory() as folder:
        client = connect(server.url)
        environ = {**os.environ, "PROMPTMILL_BROKER": server.url, "PROMPTMILL_MODEL": "tiny-random"}
        environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={BATCH}"
        ours = [sys.executable, "-m", "promptmill"]
        worker = subprocess.Popen([*ours, "worker"], env=environ, stderr=subprocess.PIPE, text=True)
        assert worker.stderr
        try:
            for line in worker.stderr:
                if "ready to claim" in line:
                    break
            threading.Thread(target=worker.stderr.read, daemon=True).start()
            with counted(client) as quiet:
                time.sleep(seconds)
            file = Path(folder) / "prompts.txt"
            file.write_text("\n".join(prompts(REAL_JOBS)))
            submitting = [*ours, "submit", str(file), "--output", folder, "--run", "r", "--steps", "1"]
            subprocess.run(submitting, env=environ, check=True, capture_output=True)
            pause_s = time.monotonic()
            with counted(client) as busy:
                while not Ledger(client).status("r").finished:
                    time.sleep(1)
                clients: Any = client.info("clients")
            busy_s = time.monotonic() - pause_s
        finally:
            worker.send_signal(signal.SIGTERM)
            worker.wait()
    assert quiet.cost and busy.cost and busy.by_command and quiet.by_command
    left = {
        name: (number - quiet.by_command.get(name, 0) * busy_s / seconds) / REAL_JOBS
        for name, number in busy.by_command.items()
    }
    most = dict(sorted(left.items(), key=lambda pair: -pair[1])[:12])
    background = {name: value * busy_s / seconds for name, value in asdict(quiet.cost).items()}
    job = Cost(**{name: (value - background[name]) / REAL_JOBS for name, value in asdict(busy.cost).items()})
    return Real(job, quiet.cost.over(seconds), most, clients["connected_clients"] - OURS)


ROWS = {
    "a job, entered": "enqueue",
    f"a job, claimed {BATCH} at once and settled": "render",
    f"a second of a worker that waits ({IDLE_WORKERS} measured)": "idle",
    f"the same, {MANY_RUNS:,} paused runs in Redis": "idle_many_runs",
    f"the same, jobs of {MANY_SHAPES} shapes that it has no program of": "idle_many_shapes",
}
HEAD = ["what", "calls", "bytes in", "bytes out", "Redis' thread, µs", "memory, bytes"]


def _row(name: str, cost: Cost) -> list[str]:
    numbers = [f"{cost.calls:.1f}", f"{cost.bytes_in:,.0f}", f"{cost.bytes_out:,.0f}", f"{cost.cpu_us:,.0f}"]
    return [name, *numbers, f"{cost.kept_bytes:,.0f}" if name == "a job, entered" else ""]


def report(costs: Costs, real: Real | None) -> str:
    """The tables, as Markdown."""
    rows = [_row(name, getattr(costs, field)) for name, field in ROWS.items()]
    text = [f"`python -m benchmarks.redis_cost`: {circumstances(('redis', 'celery'))}."]
    if real:
        rows += [_row("a job of a real worker, with Celery's events", real.job)]
        rows += [_row("a second of a real worker that waits", real.idle_second)]
    text.append(table(HEAD, rows))
    if real:
        told = ", ".join(f"`{name}` {number:.1f}" for name, number in real.commands.items() if number >= 0.05)
        text.append(f"Of the real worker's calls per job: {told}. It has {real.connections} connections.")
    return "\n\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=10.0, help="of waiting")
    parser.add_argument("--real", action="store_true", help="a real worker too")
    parser.add_argument("--json", type=Path, help="keep the costs for benchmarks.scaling_model")
    parser.add_argument("--write", type=Path, help="put the tables into this page")
    options = parser.parse_args()
    costs = measure(options.jobs, options.seconds)
    real = real_worker(options.seconds) if options.real else None
    costs = replace(costs, real=real.job if real else None)
    text = report(costs, real)
    print(text)
    if options.json:
        options.json.write_text(json.dumps(asdict(costs)))
    if options.write:
        write_section(options.write, "redis cost", text)


if __name__ == "__main__":
    main()
