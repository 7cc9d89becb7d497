"""A farm to test: real workers, a real Redis, the command line as users type it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from promptmill.embedded import find_server

WAIT_S = 120.0


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = WAIT_S) -> Any:
    """The condition's first true value. Fails the test when the time is over."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    pytest.fail(f"not within {timeout_s:.0f} s: {what}")


def server_program() -> str:
    """A redis-server for a server of the test's own; skipped on a laptop without one."""
    return find_server() or pytest.skip("no redis-server on the PATH")


def living_with(mark: str) -> list[int]:
    """Living processes whose environment holds `mark` (Linux)."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


class Farm:
    """Commands and workers of one broker. `log` keeps what the workers say."""

    def __init__(self, broker: str, folder: Path, environ: Mapping[str, str]) -> None:
        self.folder = folder
        self.environ = {
            **environ,
            "PROMPTMILL_BROKER": broker,
            "PROMPTMILL_MODEL": "tiny-random",  # quick; of submitters, and loaded by workers at their start
            "PROMPTMILL_LEASE_S": "4",
            "FLOWER_UNAUTHENTICATED_API": "true",
        }
        self._workers: list[subprocess.Popen[bytes]] = []

    def call(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Runs `promptmill ARGS` to its end."""
        command = [sys.executable, "-m", "promptmill", *args]
        return subprocess.run(command, env=self.environ, capture_output=True, text=True, timeout=WAIT_S, check=False)

    def submit(self, prompts: list[str], output: str, run: str, *args: str) -> None:
        file = self.folder / f"{run}.txt"
        file.write_text("\n".join(prompts))
        answer = self.call("submit", str(file), "--output", output, "--run", run, *args)
        assert answer.returncode == 0, answer.stderr

    def start_worker(self, *command: str) -> subprocess.Popen[bytes]:
        """A worker in the background; by default `promptmill worker`."""
        command = command or (sys.executable, "-m", "promptmill", "worker")
        log = (self.folder / f"worker-{len(self._workers)}.log").open("wb")
        with log:
            worker = subprocess.Popen(command, env=self.environ, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self._workers.append(worker)
        return worker

    def log(self, number: int) -> str:
        return (self.folder / f"worker-{number}.log").read_text()

    def wait_until_ready(self, number: int) -> None:
        wait_until(lambda: "ready to claim" in self.log(number), f"worker {number} is ready")

    def status(self, run: str) -> dict[str, Any]:
        answer = self.call("status", run, "--json")
        assert answer.returncode in (0, 1), answer.stderr
        return json.loads(answer.stdout)

    def run(self, run: str) -> dict[str, Any]:
        return self.status(run)["runs"][0]

    def wait_until_finished(self, run: str, timeout_s: float = WAIT_S) -> dict[str, Any]:
        wait_until(lambda: self.run(run)["finished"], f"run {run} is finished", timeout_s)
        return self.run(run)

    def stop(self) -> None:
        for worker in self._workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGTERM)
        for worker in self._workers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(timeout=40)
            worker.kill()


@contextlib.contextmanager
def running(command: list[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is killed in the end."""
    process = subprocess.Popen(command, **options)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def farm_of(broker: str, folder: Path) -> Iterator[Farm]:
    """A farm whose workers have one device each, and keep their compiled programs in this session's own index."""
    farm = Farm(broker, folder, {**os.environ, "XLA_FLAGS": ""})
    try:
        yield farm
    finally:
        farm.stop()
