"""From the start of a process to its first image, by part: in the first process, which compiles, and in the second.

    python -m benchmarks.cold_start [--model pocket] [--runs 3] [--write docs/performance.md]

Each run has caches of its own, which are empty for the first process and not for the second. Seconds of wall time, and
of the process' own CPU time, which other work on the machine disturbs less. Beside it how long `import promptmill`
takes, and `promptmill worker --model` on a real Redis until it is ready to claim.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.report import circumstances, table, write_section

SECTION = "cold start"
PACKAGES = ("jax", "flax")
PARTS = {
    "import": "interpreter and imports",
    "devices": "JAX finds its devices",
    "load": "weights, from files to devices",
    "program": "the program: compiled, or the kept executable",
    "first": "the first batch, all steps",
}
WAIT_S = 600.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--size", type=int, help="pixels; default: the model's own")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--write", type=Path, help="a Markdown file, into whose section the table goes")
    parser.add_argument("--child", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        print(json.dumps(parts(options)))
        return
    text = measure(options)
    print(text)
    if options.write:
        write_section(options.write, SECTION, text)


def measure(options: argparse.Namespace) -> str:
    """All runs, as Markdown."""
    runs: dict[str, list[dict[str, Any]]] = {"first": [], "second": []}
    ready: dict[str, list[float]] = {"first": [], "second": []}
    imports = [_seconds([sys.executable, "-c", "import promptmill"], {}) for _ in range(options.runs)]
    bare = [_seconds([sys.executable, "-c", "pass"], {}) for _ in range(options.runs)]
    for _ in range(options.runs):
        with tempfile.TemporaryDirectory() as caches:
            for which in runs:
                runs[which].append(_child(options, caches))
        with tempfile.TemporaryDirectory() as caches:
            for which in ready:
                ready[which].append(_worker_ready(options, caches))
    return _text(options, runs, ready, min(imports) - min(bare))


def _environ(caches: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    return {**kept, "XDG_CACHE_HOME": caches}


def _seconds(command: list[str], more: dict[str, str]) -> float:
    started = time.monotonic()
    subprocess.run(command, env={**os.environ, **more}, check=True)
    return time.monotonic() - started


def _child(options: argparse.Namespace, caches: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.cold_start", "--model", options.model]
    command += ["--size", str(options.size)] if options.size else []
    command += ["--child", str(time.monotonic())]
    ran = subprocess.run(command, env=_environ(caches), check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def parts(options: argparse.Namespace) -> dict[str, Any]:
    """In the child: wall and CPU seconds of each part, compilations, and the peak of memory over the weights."""
    clock = _Clock(options.child)
    import jax

    from promptmill.producer.job import Job
    from promptmill.producer.models import model_defaults, resolve_model
    from promptmill.worker.checkpoints import cache_folder, find_model
    from promptmill.worker.executables import keep_compiled_programs
    from promptmill.worker.families import family_of
    from promptmill.worker.program import fetch
    from promptmill.worker.programs import compile_program

    compilations: list[str] = []

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if "backend_compile" in event:
            compilations.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    model = resolve_model(options.model)
    folder = find_model(model)
    family = family_of(folder)
    family.Model  # noqa: B018 - with all that it imports
    clock.lap("import")
    jax.local_devices()
    clock.lap("devices")
    family.Model.check(folder)
    loaded = family.Model.load(folder)
    clock.lap("load")
    keep_compiled_programs(cache_folder() / "xla")
    said = model_defaults(model).job_fields() | (
        {"width": options.size, "height": options.size} if options.size else {}
    )
    job = Job(prompt="a cat", model=model, **said)
    program = compile_program(family, [loaded], job.shape, 1)
    clock.lap("program")
    fetch(program.run(program.prepare([job])), 1)
    clock.lap("first")
    return {"parts": clock.laps, "compilations": len(compilations)}


class _Clock:
    """Laps of wall and CPU time, from when the parent started this process."""

    def __init__(self, started: float) -> None:
        self.laps: dict[str, tuple[float, float]] = {}
        self._wall, self._cpu = started, 0.0

    def lap(self, name: str) -> None:
        wall, cpu = time.monotonic(), time.process_time()
        self.laps[name] = wall - self._wall, cpu - self._cpu
        self._wall, self._cpu = wall, cpu


def _worker_ready(options: argparse.Namespace, caches: str) -> float:
    """Seconds from the start of `promptmill worker` to the line that says it claims."""
    from promptmill.embedded import embedded_server

    with embedded_server() as server:
        command = [sys.executable, "-m", "promptmill", "worker", "--model", options.model, "--broker", server.url]
        started = time.monotonic()
        with subprocess.Popen(command, env=_environ(caches), stderr=subprocess.PIPE, text=True) as worker:
            assert worker.stderr is not None
            lines = []
            for line in worker.stderr:
                lines.append(line)
                if "ready to claim" in line:
                    seconds = time.monotonic() - started
                    worker.terminate()
                    worker.stderr.read()
                    return seconds
        raise RuntimeError("".join(lines))


def _median(runs: list[dict[str, Any]], part: str, which: int) -> float:
    return statistics.median(run["parts"][part][which] for run in runs)


def _text(
    options: argparse.Namespace, runs: dict[str, list[dict[str, Any]]], ready: dict[str, list[float]], imported_s: float
) -> str:
    rows = [
        [words, *(f"{_median(runs[one], part, at):.2f}" for one in runs for at in (0, 1))]
        for part, words in PARTS.items()
    ]
    sums = {
        one: [statistics.median(sum(lap[at] for lap in run["parts"].values()) for run in runs[one]) for at in (0, 1)]
        for one in runs
    }
    rows.append(["all, to the first image", *(f"{seconds:.2f}" for one in runs for seconds in sums[one])])
    rows.append(["compilations", *(cell for one in runs for cell in (str(runs[one][0]["compilations"]), ""))])
    rows.append(
        [
            "`promptmill worker --model` ready to claim",
            *(c for one in ready for c in (f"{statistics.median(ready[one]):.2f}", "")),
        ]
    )
    beyond, compile_s = sums["second"][0] - _median(runs["second"], "load", 0), _median(runs["first"], "program", 0)
    bare = beyond - _median(runs["second"], "import", 0)
    asked = f"--model {options.model}{f' --size {options.size}' if options.size else ''}"
    head = ["part", "first process, s", "its CPU, s", "second process, s", "its CPU, s"]
    return f"""
`python -m benchmarks.cold_start {asked}`: medians of {options.runs} runs. {circumstances(PACKAGES)}.

{table(head, rows)}

Beside its load, the second process takes {beyond / compile_s:.2f} of what the first one took to compile until its first
image, imports included, and {bare / compile_s:.2f} without them.
`import promptmill` takes {imported_s:.3f} s beyond the bare interpreter.
"""


if __name__ == "__main__":
    main()
