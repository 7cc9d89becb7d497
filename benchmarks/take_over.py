"""Seconds until another worker renders, after one was killed (SIGKILL) or told to end (SIGTERM).

    python -m benchmarks.take_over --times 5 --lease 4

Two real workers that are ready, a real Redis, a folder, the tiny model. SIGKILL: from the death until the other one has
begun each job that the dead one held; at most lease + 5 s are promised. SIGTERM: from the signal until the
other one begins a job; at most two seconds.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from promptmill.embedded import embedded_server
from promptmill.producer.broker import client_of
from promptmill.producer.queue.ledger import Ledger
from tests.chaos.soak.causes import Event, after_sigkill, after_sigterm, read_begun
from tests.chaos.soak.tally import spread
from tests.chaos.soak.zygote import Child, Zygote
from tests.farm import wait_until

JOBS = 150
SIGNALS = {"SIGKILL worker": signal.SIGKILL, "SIGTERM": signal.SIGTERM}


def measure(broker: str, folder: Path, lease_s: float, times: int) -> dict[str, list[float]]:
    """One run after the other, each with one signal to one of two workers at work."""
    log = folder / "begun.log"
    log.touch()
    environ = {"PROMPTMILL_BROKER": broker, "PROMPTMILL_MODEL": "tiny-random", "PROMPTMILL_LEASE_S": str(lease_s)}
    zygote = Zygote({**os.environ, **environ, "SOAK_LOG": str(log), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""})
    ledger, events, workers = Ledger(client_of(broker)), list[Event](), list[Child]()
    try:
        for number in range(2 * times):
            what = list(SIGNALS)[number % 2]
            workers = _two_ready(zygote, workers, folder)
            run, prompts = f"r{number}", folder / f"r{number}.txt"
            prompts.write_text("\n".join(f"{run} {n}" for n in range(JOBS)))
            argv = ["submit", str(prompts), "--output", str(folder / "out"), "--run", run, "--steps", "2"]
            first = workers[0]
            before = _begun_by(log, first.pid)
            assert zygote.start(argv, folder / "submit.log").ended.wait(120)
            wait_until(lambda pid=first.pid, least=before + 3: _begun_by(log, pid) > least, "it works")  # type: ignore[misc]
            events.append(Event(time.time(), what, first.pid))
            first.signal(SIGNALS[what])
            wait_until(lambda run=run: ledger.status(run).finished, "the run is over", 300)  # type: ignore[misc]
    finally:
        zygote.close()
    begun = read_begun(log.read_text())
    return {"SIGKILL": after_sigkill(begun, events), "SIGTERM": after_sigterm(begun, events)}


def _two_ready(zygote: Zygote, workers: list[Child], folder: Path) -> list[Child]:
    """Two workers that are ready to claim: those that live, and new ones."""
    living = [one for one in workers if not one.ended.wait(0) and one is not workers[0]] if workers else []
    while len(living) < 2:
        said = folder / f"worker-{time.monotonic_ns()}.log"
        living.append(zygote.start(["worker"], said))
        wait_until(lambda said=said: said.exists() and "ready to claim" in said.read_text(), "a worker is ready")  # type: ignore[misc]
    return living


def _begun_by(log: Path, pid: int) -> int:
    return sum(line.split()[1:2] == [str(pid)] for line in log.read_text().splitlines())


def main() -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.take_over")
    parser.add_argument("--times", type=int, default=5, help="of each signal")
    parser.add_argument("--lease", type=float, default=4.0, help="seconds")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="promptmill-take-over-") as folder, embedded_server() as server:
        found = measure(server.url, Path(folder), given.lease, given.times)
    told = {f"{what}, seconds": spread(seconds) for what, seconds in found.items()}
    print(json.dumps({"lease, seconds": given.lease, **told}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
