"""Flower with many jobs: how long a page of its task list takes, and how much memory it holds.

    python -m benchmarks.flower [--jobs 10000 --jobs 100000] [--write docs/performance.md]

Starts a Redis of its own, and beside it Flower twice: with its own memory of tasks, and `promptmill flower`. Both hear
the events of as many jobs, as a worker would send them. While a page is asked for, more jobs come in.
"""

import argparse
import base64
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.report import circumstances, table, write_section
from promptmill.embedded import embedded_server
from promptmill.producer.job import Job
from promptmill.producer.queue.queue import Claim
from promptmill.worker.app import make_app
from promptmill.worker.events import JobEvents
from promptmill.worker.flower_config import tasks_columns
from promptmill.worker.settings import WorkerSettings

COLUMNS = tasks_columns.split(",")
AGAIN = 5  # times that each page is asked for
ROWS = 50  # of a page
INCOMING = 50  # jobs per second while pages are asked for
HEADERS = {"Authorization": f"Basic {base64.b64encode(b'me:secret').decode()}"}
OWN = """
from flower import events
own = events.EventsState
from promptmill.worker.flower_config import format_task, max_tasks, tasks_columns
events.EventsState = own
"""
"""A configuration that shows jobs as ours does, and leaves Flower's memory of tasks alone."""


@dataclass
class Flower:
    name: str
    command: list[str]
    url: str
    process: Any = None
    cells: dict[str, str] = field(default_factory=dict)

    def page(self, start: int = 0, search: str = "", column: str = "received", order: str = "desc") -> dict[str, Any]:
        """A page of the task list, as its own script asks for it."""
        query = {"draw": 1, "start": start, "length": ROWS, "search[value]": search}
        query |= {"order[0][column]": 0, "order[0][dir]": order, "columns[0][data]": column}
        found: dict[str, Any] = get(f"{self.url}/tasks/datatable?{urllib.parse.urlencode(query)}")
        return found

    def has_heard_of(self, jobs: int) -> bool:
        page = self.page()
        return page["recordsTotal"] >= jobs and page["data"][0]["state"] == "SUCCESS"

    def memory_mb(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def get(url: str) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, headers=HEADERS), timeout=60) as answer:
        return json.load(answer)


def flowers(port: int, folder: Path) -> list[Flower]:
    (folder / "own.py").write_text(OWN)
    celery = ["celery", "-A", "promptmill.worker.app", "flower", f"--conf={folder / 'own.py'}"]
    commands = {"Flower's own": celery, "`promptmill flower`": ["promptmill", "flower"]}
    told = [
        Flower(name, [sys.executable, "-P", "-m", *command], f"http://127.0.0.1:{at}")
        for at, (name, command) in enumerate(commands.items(), port)
    ]
    for flower in told:
        flower.command += [f"--port={flower.url.rpartition(':')[2]}", "--address=127.0.0.1", "--basic-auth=me:secret"]
    return told


@contextmanager
def running(flower: Flower, environ: dict[str, str], lifeline: int) -> Iterator[Flower]:
    flower.process = subprocess.Popen(flower.command, env=environ, pass_fds=[lifeline])
    try:
        while not _is_up(flower):
            time.sleep(0.2)
        yield flower
    finally:
        flower.process.terminate()
        flower.process.wait()


def _is_up(flower: Flower) -> bool:
    try:
        urllib.request.urlopen(f"{flower.url}/healthcheck")
    except OSError:
        return False
    return True


def send(events: JobEvents, indexes: Any) -> None:
    for index in indexes:
        job = Job(prompt=f"a prompt of some length, number {index}", seed=index, width=64, height=64)
        claim = Claim("1-0", job.shape, "many", index, 1, job, "out")
        events.received(claim)
        events.started(claim)
        events.succeeded(claim, f"out/many/images/{job.id}.png", 0.5)


@contextmanager
def incoming(events: JobEvents, first: int) -> Iterator[None]:
    """More jobs, evenly."""
    over = threading.Event()

    def more() -> None:
        index = first
        while not over.wait(1 / INCOMING):
            send(events, [index])
            index += 1

    sender = threading.Thread(target=more)
    sender.start()
    try:
        yield
    finally:
        over.set()
        sender.join()


def timed(flower: Flower, pages: list[dict[str, Any]]) -> str:
    """The median over all pages, and the slowest page."""
    times = []
    for page in pages * AGAIN:
        began = time.perf_counter()
        flower.page(**page)
        times.append(1000 * (time.perf_counter() - began))
    return f"{statistics.median(times):.0f} / {max(times):.0f}"


def measure(flower: Flower, events: JobEvents, jobs: int) -> None:
    before = flower.memory_mb()
    while not flower.page()["recordsTotal"]:  # events that come before Flower listens are lost
        send(events, range(1))
        time.sleep(0.5)
    began = time.perf_counter()
    send(events, range(1, jobs))
    while not flower.has_heard_of(jobs):
        time.sleep(0.5)
    took_s = time.perf_counter() - began
    with incoming(events, jobs):
        flower.cells |= {
            "first page, ms": timed(flower, [{}]),
            "later pages, ms": timed(flower, [{"start": jobs * part // 4} for part in (1, 2, 3)]),
            "by any column, ms": timed(flower, [{"column": name, "order": "asc"} for name in COLUMNS]),
            "one run (`kwargs:run=many`), ms": timed(flower, [{"search": "kwargs:run=many"}]),
            "one state (`state:SUCCESS`), ms": timed(flower, [{"search": "state:SUCCESS"}]),
            "words of a prompt, ms": timed(flower, [{"search": '"number 77"'}]),
        }
    flower.cells["memory, MB"] = f"{flower.memory_mb():.0f} ({before:.0f} without jobs)"
    flower.cells["events taken in per second"] = f"{3 * jobs / took_s:,.0f}"


def rows(jobs: int, port: int) -> list[list[str]]:
    with embedded_server() as server, tempfile.TemporaryDirectory() as folder:
        environ = {**os.environ, "PROMPTMILL_BROKER": server.url}
        told = flowers(port, Path(folder))
        for flower in told:
            events = JobEvents(make_app(WorkerSettings(broker=server.url)), "worker@bench")
            with running(flower, environ, server.lifeline):
                measure(flower, events, jobs)
            events.close()
    return [[f"{jobs:,}", name, *(flower.cells[name] for flower in told)] for name in told[0].cells]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, action="append", help="once per table (10000 and 100000)")
    parser.add_argument("--port", type=int, default=15555, help="of the first Flower; the next has the next")
    parser.add_argument("--write", type=Path, help="a Markdown file with a section `flower`")
    jobs, port, write = vars(parser.parse_args()).values()
    header = ["jobs", "a page of 50 rows, median / worst", "Flower's own", "`promptmill flower`"]
    told = table(header, [row for count in jobs or (10_000, 100_000) for row in rows(count, port)])
    text = f"{told}\n\n{INCOMING} jobs per second come in meanwhile. {circumstances(('flower', 'celery'))}."
    print(text)
    if write:
        write_section(write, "flower", text)


if __name__ == "__main__":
    main()
