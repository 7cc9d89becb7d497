"""Flower with many jobs: how long a page of its task list takes, and how much memory it holds.

    python -m benchmarks.flower [--jobs 100000] [--write docs/performance.md]

Starts a Redis and `promptmill flower` of its own, and sends it the events of that many jobs, as a worker would.
"""

import argparse
import base64
import json
import os
import statistics
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks.report import circumstances, write_section
from promptmill.embedded import embedded_server
from promptmill.producer.job import Job
from promptmill.producer.queue.queue import Claim
from promptmill.worker.app import make_app
from promptmill.worker.events import JobEvents
from promptmill.worker.settings import WorkerSettings

PAGES = 20
ROWS = 50  # of a page
HEADERS = {"Authorization": f"Basic {base64.b64encode(b'me:secret').decode()}"}


def get(url: str) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, headers=HEADERS), timeout=60) as answer:
        return json.load(answer)


def page(url: str, start: int, search: str = "") -> dict[str, Any]:
    """A page of the task list, as its own script asks for it."""
    query = {"draw": 1, "start": start, "length": ROWS, "search[value]": search}
    query |= {"order[0][column]": 0, "order[0][dir]": "desc", "columns[0][data]": "received"}
    found: dict[str, Any] = get(f"{url}/tasks/datatable?{urllib.parse.urlencode(query)}")
    return found


def send(events: JobEvents, indexes: range) -> None:
    for index in indexes:
        job = Job(prompt=f"a prompt of some length, number {index}", seed=index, width=64, height=64)
        claim = Claim("1-0", job.shape, "many", index, 1, job, "out")
        events.received(claim)
        events.started(claim)
        events.succeeded(claim, f"out/many/images/{job.id}.png", 0.5)


def seconds(call: Any) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _ms(times: list[float]) -> str:
    return f"{1000 * statistics.median(times):.0f}"


def memory_mb(process: int) -> float:
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--port", type=int, default=15555)
    parser.add_argument("--write", type=Path, help="a Markdown file with a section `flower`")
    jobs, port, write = vars(parser.parse_args()).values()
    url = f"http://127.0.0.1:{port}"
    with embedded_server() as server:
        command = [sys.executable, "-P", "-m", "promptmill", "flower", f"--port={port}", "--basic-auth=me:secret"]
        environ = {**os.environ, "PROMPTMILL_BROKER": server.url}
        flower = subprocess.Popen([*command, "--address=127.0.0.1"], env=environ, pass_fds=[server.lifeline])
        try:
            while True:
                try:
                    urllib.request.urlopen(f"{url}/healthcheck")
                    break
                except OSError:
                    time.sleep(0.2)
            before = memory_mb(flower.pid)
            events = JobEvents(make_app(WorkerSettings(broker=server.url)), "worker@bench")
            while not page(url, 0)["recordsTotal"]:  # events that come before Flower listens are lost
                send(events, range(1))
                time.sleep(0.5)
            took = seconds(lambda: send(events, range(1, jobs)))
            while page(url, 0)["recordsTotal"] < jobs or page(url, 0)["data"][0]["state"] != "SUCCESS":
                time.sleep(0.5)
            pages = [seconds(lambda at=at: page(url, at * jobs // PAGES)) for at in range(PAGES)]
            found = [seconds(lambda: page(url, 0, "kwargs:run=many")) for _ in range(5)]
            told = [
                f"{jobs:,} jobs in Flower ({circumstances(('flower', 'celery'))}):",
                "",
                f"- {3 * jobs / took:,.0f} events/s sent and taken in",
                f"- a page of {ROWS} rows: median {_ms(pages)} ms, worst {1000 * max(pages):.0f} ms",
                f"- the same page of one run (`kwargs:run=many`): median {_ms(found)} ms",
                f"- memory: {before:.0f} MB without jobs, {memory_mb(flower.pid):.0f} MB with them",
            ]
            print("\n".join(told))
            if write:
                write_section(write, "flower", "\n".join(told))
        finally:
            flower.terminate()
            flower.wait()


if __name__ == "__main__":
    main()
