"""Whether the device ever waits: a program of known duration in a real worker, with a real Redis, PNG and a bucket.

    python -m benchmarks.device_busy [--cases 2:8:512 0.5:64:64] [--seconds 20] [--runs-of 10000] [--write PAGE]

In the place of the compiled program stands one that sleeps: `SECONDS:BATCH:SIDE`, seconds per batch of so many images
of so many pixels a side. All else is the worker's own: tokens and noise, claims, PNG, uploads to fake-gcs, the ledger,
Celery's events. `busy` is the time in which the device had a batch over the time from its first to the end of its
last. CPU milliseconds per job are the worker process' own; by stage they are of the threads that do it, so that other
work on the machine disturbs them little. `--runs-of` renders as many jobs of runs of different size.
"""

import argparse
import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import circumstances, table, write_section

SECTION = "device busy"
PACKAGES = ("jax", "celery", "redis", "pillow", "tokenizers")
CASES = ("2:8:512", "1:32:256", "0.5:8:256", "1:64:64", "0.1:8:64")
STAGES = ("claim", "tokenise", "fetch", "encode", "upload", "settle")
POLL_S = 0.2
WAIT_S = 900.0


@dataclass(frozen=True)
class Case:
    """A program: seconds per batch, images per batch, pixels per side."""

    seconds: float
    batch: int
    side: int

    @classmethod
    def read(cls, text: str) -> "Case":
        seconds, batch, side = text.split(":")
        return cls(float(seconds), int(batch), int(side))

    def __str__(self) -> str:
        return f"{self.seconds:g}:{self.batch}:{self.side}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="*", type=Case.read, default=[Case.read(case) for case in CASES])
    parser.add_argument("--seconds", type=float, default=20.0, help="of the device, per case")
    parser.add_argument(
        "--runs-of", nargs="*", type=int, default=[], help="jobs of runs of which --sample are rendered"
    )
    parser.add_argument("--upload-s", type=float, default=0.0, help="a bucket that takes so much longer per image")
    parser.add_argument("--sample", type=int, default=6400)
    parser.add_argument("--sample-case", type=Case.read, default=Case(1, 64, 64))
    parser.add_argument("--write", type=Path, help="a Markdown file, into whose section the tables go")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        serve(options.cases[0], options.child, options.upload_s)
        return
    slow = options.upload_s
    rows = [_row(case, jobs := _jobs_of(case, options.seconds), jobs, slow) for case in options.cases]
    rows += [_row(options.sample_case, size, min(options.sample, size), slow) for size in options.runs_of]
    text = _text(rows)
    print(text)
    if options.write:
        write_section(options.write, SECTION, text)


def _jobs_of(case: Case, seconds: float) -> int:
    return max(4, round(seconds / case.seconds)) * case.batch


def _row(case: Case, size: int, sample: int, upload_s: float) -> list[str]:
    """One line: a run of `size` jobs, of which `sample` are waited for."""
    print(f"{case}, {sample} of {size} jobs", file=sys.stderr)
    told = measure(case, size, sample, upload_s=upload_s)
    jobs = told["jobs"]
    stages = [f"{1e3 * told['stages'].get(stage, 0.0) / jobs:.2f}" for stage in STAGES]
    rate = case.batch / case.seconds
    return [
        str(case),
        f"{size:,}",
        f"{jobs:,}",
        f"{rate:.0f}",
        f"{told['busy']:.1%}",
        f"{1e3 * told['cpu_s'] / jobs:.2f}",
        *stages,
        f"{told['cpu_s'] / jobs * rate:.2f}",
    ]


def measure(case: Case, size: int, sample: int, devices: int = 1, upload_s: float = 0.0) -> dict[str, Any]:
    """What the worker says of its devices and itself, once it has rendered `sample` jobs of a run of `size`."""
    from promptmill.embedded import embedded_server

    with tempfile.TemporaryDirectory() as folder, embedded_server() as server, _bucket() as (output, environ):
        prompts = Path(folder) / "prompts.txt"
        prompts.write_text("".join(f"a red fox in the snow, number {number}, cinematic\n" for number in range(size)))
        environ |= {"PROMPTMILL_BROKER": server.url, "PROMPTMILL_PER_DEVICE_BATCH": str(case.batch // devices)}
        environ |= {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
        command = [sys.executable, "-m", "promptmill", "submit", str(prompts), "--output", output, "--run", "r"]
        command += ["--model", "pocket", "--width", str(case.side), "--height", str(case.side), "--steps", "4"]
        subprocess.run(
            [*command, "--negative-prompt", "blurry, low quality"], env=environ, check=True, stdout=subprocess.DEVNULL
        )
        result, log = Path(folder) / "result.json", Path(folder) / "worker.log"
        command = [sys.executable, "-m", "benchmarks.device_busy", "--cases", str(case), "--child", str(result)]
        command += ["--upload-s", str(upload_s)]
        with log.open("wb") as words:
            worker = subprocess.Popen(command, env=environ, stdout=words, stderr=words)
        try:
            _wait(server.url, sample, worker)
        except RuntimeError as error:
            raise RuntimeError(f"{error}\n{log.read_text()[-3000:]}") from error
        finally:
            worker.terminate()
            worker.wait(timeout=120)
        found: dict[str, Any] = json.loads(result.read_text())
    return found


@contextlib.contextmanager
def _bucket() -> Iterator[tuple[str, dict[str, str]]]:
    """A bucket of fake-gcs, and the environment in which clients find it."""
    from tests.fake_gcs import start_fake_gcs

    with start_fake_gcs() as gcs:
        yield gcs.create_bucket("busy"), {**os.environ, "STORAGE_EMULATOR_HOST": gcs.url, "JAX_PLATFORMS": "cpu"}


def _wait(broker: str, jobs: int, worker: subprocess.Popen[bytes]) -> None:
    from promptmill.producer.broker import connect
    from promptmill.producer.queue.ledger import Ledger

    ledger, deadline = Ledger(connect(broker)), time.monotonic() + WAIT_S
    while (status := ledger.status("r")).done + status.failed < jobs:
        if status.failed or worker.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{status}, worker {worker.poll()}")
        time.sleep(POLL_S)


class SleepingDevice:
    """Takes batches in turn, and is busy with each for some seconds."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.spans: list[tuple[float, float]] = []
        half = np.random.default_rng(0).integers(0, 256, (case.side, case.side // 2, 3), np.uint8)
        flat = np.full((case.side, case.side - case.side // 2, 3), 128, np.uint8)
        image = np.concatenate([half, flat], axis=1)  # as a PNG about half of its pixels' bytes
        self._parts = (
            np.broadcast_to(image, (case.batch, *image.shape)),
            np.full(case.batch, True),
            np.full(case.batch, False),
        )
        self._waiting: queue.SimpleQueue[threading.Event] = queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    def __call__(self, weights: Any, inputs: Any) -> Any:
        from promptmill.worker.program import Result

        done = threading.Event()
        self._waiting.put(done)
        return Result(*(_Later(done, part) for part in self._parts))

    def _run(self) -> None:
        while True:
            done = self._waiting.get()
            started = time.monotonic()
            time.sleep(self.case.seconds)
            self.spans.append((started, time.monotonic()))
            done.set()


@dataclass(frozen=True)
class _Later:
    """An array that is there when its batch is: all that JAX asks for."""

    done: threading.Event
    values: np.ndarray

    def block_until_ready(self) -> "_Later":
        self.done.wait()
        return self

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        self.done.wait()
        return self.values


class Stages:
    """CPU seconds of the threads that do a stage, summed."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    def add(self, stage: str, seconds: float) -> None:
        with self._lock:
            self.seconds[stage] += seconds

    @contextlib.contextmanager
    def timed(self, observer: Any, stage: str, jobs: int = 1) -> Iterator[None]:
        """In the place of promptmill.worker.observers.timed."""
        started = time.thread_time()
        yield
        self.add(stage, time.thread_time() - started)
        observer.spent(stage, 0.0, jobs)


def serve(case: Case, result: Path, upload_s: float) -> None:
    """In the child: a worker as `promptmill worker` starts it, with a device that sleeps; at its end, what it saw."""
    from promptmill.worker import observers

    stages = Stages()
    observers.timed = stages.timed
    from promptmill.producer.outputs.gcs import Bucket
    from promptmill.worker.app import default_hostname, make_app
    from promptmill.worker.devices import Devices
    from promptmill.worker.host import Host
    from promptmill.worker.settings import WorkerSettings

    device = SleepingDevice(case)
    Devices.compile = lambda *_, **__: device  # type: ignore[method-assign]
    claim = Host.claim

    def timed_claim(*args: Any, **more: Any) -> Any:
        started = time.thread_time()
        claims = claim(*args, **more)
        stages.add("claim", time.thread_time() - started)
        return claims

    Host.claim = timed_claim  # type: ignore[method-assign]
    put_once = Bucket.put_once

    def put_slowly(*args: Any, **more: Any) -> None:
        time.sleep(upload_s)
        put_once(*args, **more)

    Bucket.put_once = put_slowly  # type: ignore[method-assign, assignment]
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    marks: list[float] = []
    threading.Thread(target=_mark_the_start, args=(device, stages, marks), daemon=True).start()
    app = make_app(WorkerSettings.from_env())
    app.Worker(hostname=default_hostname(), pool_cls="threads", loglevel="INFO", task_events=True, quiet=True).start()
    spans = device.spans[1:]  # the first is the warm-up's
    busy = sum(end - start for start, end in spans) / (spans[-1][1] - spans[0][0])
    told = {
        "busy": busy,
        "jobs": len(spans) * case.batch,
        "cpu_s": time.process_time() - marks[0],
        "stages": stages.seconds,
    }
    result.write_text(json.dumps(told))
    os._exit(0)


def _mark_the_start(device: SleepingDevice, stages: Stages, marks: list[float]) -> None:
    """CPU time counts from the end of the warm-up."""
    while not device.spans:
        time.sleep(0.01)
    stages.seconds.clear()
    marks.append(time.process_time())


def _text(rows: list[list[str]]) -> str:
    head = ["seconds:batch:side", "jobs of the run", "rendered", "images/s offered", "busy", "CPU, ms/job"]
    head += [f"{stage}, ms" for stage in STAGES] + ["cores at that rate"]
    return f"""
`python -m benchmarks.device_busy`: {circumstances(PACKAGES)}.

{table(head, rows)}
"""


if __name__ == "__main__":
    main()
