"""A soak's course: workers that are always started anew, runs one after the other, and faults without end."""

import contextlib
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

from promptmill.producer.broker import client_of
from promptmill.producer.outputs.gcs import Bucket, open_bucket
from tests.chaos.soak.causes import after_sigkill, after_sigterm, causes, read_begun
from tests.chaos.soak.faults import Faults
from tests.chaos.soak.journal import Journal, doubled, written_over
from tests.chaos.soak.runs import Run, Shared
from tests.chaos.soak.tally import Tally
from tests.chaos.soak.zygote import Child, Zygote
from tests.fake_gcs import free_port, start_fake_gcs
from tests.gcs_wire import serve
from tests.mortal_redis import MortalRedis

ROOT = Path(__file__).parents[3]
LEASE_S = 3.0
TICK_S = 0.05
RENDERING_AT_ONCE = 2
"""Runs: one ends while the other keeps the workers busy."""
MOST_AT_ONCE = 5
LAST_S = 120.0
"""For what is under way when no more faults are injected."""


class Soak:
    """One session, in a folder of its own."""

    def __init__(self, folder: Path, seed: int, workers: int, jobs: int) -> None:
        self._folder, self._workers, self._jobs = folder, workers, jobs
        self._stack = contextlib.ExitStack()
        self._chance = random.Random(seed)
        self._tally = Tally()
        server = MortalRedis(folder)
        server.start()
        self._stack.callback(self._end, server)
        gcs = self._stack.enter_context(start_fake_gcs())
        wire = self._stack.enter_context(serve(gcs.port))
        self._journal = Journal(wire, self._chance)
        self._begun = folder / "begun.log"
        self._begun.touch()
        # This process looks at the bucket itself, its children through the proxy.
        os.environ["STORAGE_EMULATOR_HOST"] = gcs.url
        output = open_bucket(gcs.create_bucket("soak").removeprefix("gs://"), 8)
        assert isinstance(output, Bucket)
        client = client_of(server.url, timeout_s=5.0)
        self._zygote = Zygote(self._environ(server.url, wire.url))
        self._stack.callback(self._zygote.close)
        self._shared = Shared(self._zygote, self._chance, client, output, folder, self._tally, {})
        self._faults = Faults(self._chance, server, client, self._journal, self._begun, LEASE_S)
        self._exporter: Child | None = None
        self._runs: list[Run] = []
        self._started = 0
        self._port = free_port()

    def _environ(self, redis_url: str, bucket_url: str) -> dict[str, str]:
        return {
            **os.environ,
            "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".pytest_cache" / "soak"),
            "JAX_PLATFORMS": "cpu",
            "PROMPTMILL_BATCHES_IN_FLIGHT": "2",
            "PROMPTMILL_BROKER": redis_url,
            "PROMPTMILL_DRAIN": "2",
            "PROMPTMILL_LEASE_S": str(LEASE_S),
            "PROMPTMILL_MODEL": "tiny-random",
            "SOAK_LOG": str(self._begun),
            "STORAGE_EMULATOR_HOST": bucket_url,
            "XLA_FLAGS": "",
        }

    def go(self, minutes: float) -> Tally:
        """Soak for so long, and bring to their end what is under way then."""
        started = time.monotonic()
        end = started + 60 * minutes
        while time.monotonic() < end:
            self._tick(killing=True)
        self._faults.calm()
        while self._runs and time.monotonic() < end + LAST_S:
            self._tick(killing=False)
        for run in self._runs:
            run.give_up(f"{run.name} did not end in the {LAST_S:.0f} s after the last fault")
        self._tally.minutes = (time.monotonic() - started) / 60
        self._sum_up()
        return self._tally

    def _tick(self, *, killing: bool) -> None:
        self._faults.workers = [one for one in self._faults.workers if one.code is None]
        while len(self._faults.workers) < self._workers:
            log = self._folder / "workers.log"
            self._faults.workers.append(self._zygote.start(["worker", "--loglevel", "WARNING"], log))
        self._keep_exporter(killing)
        if killing and self._has_room():
            self._runs.append(Run(self._shared, f"r{self._started}", self._jobs))
            self._started += 1
        for run in self._runs:
            run.step(killing=killing)
        self._runs = [run for run in self._runs if not run.over]
        self._faults.tick(TICK_S, killing=killing)
        time.sleep(TICK_S)

    def _has_room(self) -> bool:
        before_pack = [run for run in self._runs if run.stage in ("submit", "render")]
        return len(before_pack) < RENDERING_AT_ONCE and len(self._runs) < MOST_AT_ONCE

    def _keep_exporter(self, killing: bool) -> None:
        if self._exporter is None or self._exporter.code is not None:
            argv = ["exporter", "--port", str(self._port), "--address", "127.0.0.1"]
            self._exporter = self._zygote.start(argv, self._folder / "exporter.log")
        elif killing and self._chance.random() < 0.2 * TICK_S:
            self._exporter.signal(signal.SIGKILL)
            self._tally.faults["SIGKILL exporter"] += 1

    def _sum_up(self) -> None:
        tally, journal = self._tally, self._journal
        tally.faults += self._faults.injected + journal.injected
        begun = read_begun(self._begun.read_text())
        tally.rendered = sum(map(len, begun.values()))
        tally.rendered_again = causes(begun, self._faults.events)
        tally.after_sigkill_s = after_sigkill(begun, self._faults.events)
        tally.after_sigterm_s = after_sigterm(begun, self._faults.events)
        blobs = self._shared.output.client.list_blobs("soak")  # type: ignore[attr-defined]
        tally.doubled += doubled(journal.writes, {blob.name: str(blob.generation) for blob in blobs})
        tally.doubled += [f"deleted: {one}" for one in journal.deletions if "images" in one]
        tally.written_over = written_over(journal.writes)
        images = [write for write in journal.writes if "/images/" in write.name]
        tally.uploads = Counter(
            {200: "made", 412: "refused: it was there"}.get(one.status, str(one.status)) for one in images
        )

    def close(self) -> None:
        self._faults.calm()
        self._stack.close()

    def _end(self, server: MortalRedis) -> None:
        with contextlib.suppress(ProcessLookupError):
            server.kill()
