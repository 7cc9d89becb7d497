"""How fast prompt files go into Redis, in how much memory, and what a job costs there; beside Celery's apply_async.

    python -m benchmarks.submit [--sizes 100000 1000000] [--celery 20000] [--write docs/performance.md]

Each row is a process of its own and an empty Redis of its own on this machine. Phases are timed inside the process:
`plan` reads, checks, hashes and packs; `write` puts the plan into a folder; `enqueue` brings the ledger and all jobs
into Redis. `all` is the command `promptmill submit` from its start to its end, timed from outside. The peer is a loop
of `apply_async` with the same prompts, as a Celery client would write it.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.report import circumstances, table, write_section
from promptmill.embedded import embedded_server
from promptmill.producer.broker import celery_settings, connect
from promptmill.producer.outputs.folder import Folder
from promptmill.producer.plan import PlanOptions, plan_run
from promptmill.producer.plan_files import write_plan
from promptmill.producer.submit import submit

MODEL = "stabilityai/stable-diffusion-xl-base-1.0"
STYLES = ("oil painting", "watercolour", "35 mm photograph, golden hour", "isometric render", "ink on paper")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--celery", type=int, default=20_000, help="jobs of the peer")
    parser.add_argument("--write", type=Path, help="put the tables into this page")
    parser.add_argument("--child", nargs=2, metavar=("FILE", "BROKER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(phases(*options.child)))
        return
    text = measure(options.sizes, options.celery)
    print(text)
    if options.write:
        write_section(options.write, "submission", text)


def measure(sizes: list[int], celery_jobs: int) -> str:
    """The whole comparison, as Markdown."""
    rows = [row(suffix, size) for suffix in ("txt", "jsonl") for size in sizes]
    head = [
        "file",
        "jobs",
        "plan, jobs/s",
        "write, jobs/s",
        "enqueue, jobs/s",
        "all, jobs/s",
        "peak, MB",
        "Redis, bytes/job",
    ]
    said = circumstances(("redis", "celery", "kombu"))
    return "\n\n".join(
        [
            f"`python -m benchmarks.submit`: {said}.",
            "Peak is the process' largest memory, with the interpreter. Redis: used_memory a job, the prompt aside.",
            table(head, rows),
            table(["peer", "jobs", "jobs/s", "Redis, bytes/job"], [celery_row(celery_jobs)]),
        ]
    )


def prompts(count: int) -> Iterable[str]:
    """Prompts of some 80 characters, no two alike."""
    for number in range(count):
        yield f"a red fox in the snow, number {number}, under a tree in winter, {STYLES[number % len(STYLES)]}"


def write_file(path: Path, count: int) -> int:
    """A prompt file; the bytes of its prompts."""
    size = 0
    with path.open("w", encoding="utf-8") as file:
        for number, prompt in enumerate(prompts(count)):
            size += len(prompt)
            row = {"prompt": prompt, "seed": number, "negative_prompt": "blurry", "width": 1024}
            file.write(f"{json.dumps(row) if path.suffix == '.jsonl' else prompt}\n")
    return size


def row(suffix: str, count: int) -> list[str]:
    """A line of the table: a process for the phases, and one for the command."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"prompts.{suffix}"
        prompt_bytes = write_file(path, count)
        with embedded_server() as redis:
            url = redis.url
            before = used_memory(url)
            command = [sys.executable, "-m", "benchmarks.submit", "--child", str(path), url]
            told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            redis_bytes = (used_memory(url) - before - prompt_bytes) / count
        seconds, peak = whole_command(path, Path(folder) / "out")
    rates = [f"{count / told[name]:,.0f}" for name in ("plan", "write", "enqueue")]
    return [f".{suffix}", f"{count:,}", *rates, f"{count / seconds:,.0f}", f"{peak:.0f}", f"{redis_bytes:.0f}"]


def phases(file: str, broker: str) -> dict[str, float]:
    """Seconds of each phase, as `promptmill submit` goes through them."""
    client = connect(broker)
    with tempfile.TemporaryDirectory() as folder:
        output = Folder(Path(folder))
        marks = [time.perf_counter()]
        with plan_run([file], PlanOptions({"model": MODEL})) as plan:
            marks.append(time.perf_counter())
            write_plan(output.child("r"), "r", plan)
            marks.append(time.perf_counter())
            submit(plan, output=output, run="r", client=client)
            marks.append(time.perf_counter())
    return {name: end - start for name, start, end in zip(("plan", "write", "enqueue"), marks, marks[1:], strict=False)}


def whole_command(file: Path, output: Path) -> tuple[float, float]:
    """Seconds of `promptmill submit` from its start to its end, and its peak of memory in MB."""
    with embedded_server() as redis:
        command = [sys.executable, "-m", "promptmill", "submit", str(file), "--output", str(output), "--model", MODEL]
        started = time.perf_counter()
        process = subprocess.Popen(
            [*command, "--broker", redis.url], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
    if status:
        raise RuntimeError(f"promptmill submit ended with status {status}")
    return seconds, peak_mb(usage)


def peak_mb(usage: resource.struct_rusage) -> float:
    return usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def used_memory(url: str) -> int:
    info: Any = connect(url).info("memory")
    return int(info["used_memory"])


def render(**fields: Any) -> None:
    """The peer's task: nobody runs it here."""


def celery_row(count: int) -> list[str]:
    """A loop of apply_async with the fields that a job has."""
    from celery import Celery

    with embedded_server() as redis:
        app = Celery("peer")
        app.config_from_object(celery_settings(redis.url))
        task = app.task(name="render")(render)
        fields = {"model": MODEL, "width": 1024, "height": 1024, "num_inference_steps": 50, "guidance_scale": 5.0}
        before, size = used_memory(redis.url), 0
        started = time.perf_counter()
        for number, prompt in enumerate(prompts(count)):
            task.apply_async(kwargs={**fields, "prompt": prompt, "seed": number})
            size += len(prompt)
        seconds = time.perf_counter() - started
        redis_bytes = (used_memory(redis.url) - before - size) / count
    return ["Celery, apply_async in a loop", f"{count:,}", f"{count / seconds:,.0f}", f"{redis_bytes:.0f}"]


if __name__ == "__main__":
    main()
