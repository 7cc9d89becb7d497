"""What may befall the processes of a soak, a row per fault."""

import contextlib
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import redis

from tests.chaos.soak.causes import Event
from tests.chaos.soak.journal import Journal
from tests.chaos.soak.zygote import Child
from tests.mortal_redis import MortalRedis

AWAY_S = 1.0
FULL_S = 2.0


class AtWork:
    """The workers that have begun a job, by what they write down: killing one that still starts shows nothing."""

    def __init__(self, begun: Path) -> None:
        self._begun, self._read = begun, 0
        self._pids: set[int] = set()

    def pids(self) -> set[int]:
        with self._begun.open("rb") as file:
            file.seek(self._read)
            lines = file.read().rpartition(b"\n")[0]
        self._read += len(lines)
        self._pids |= {int(line.split()[1]) for line in lines.splitlines() if line.count(b" ") == 2}
        return self._pids


class Faults:
    """Injects what `RATES` says, and what is due of earlier ones."""

    def __init__(
        self,
        chance: random.Random,
        server: MortalRedis,
        client: redis.Redis,
        journal: Journal,
        begun: Path,
        lease_s: float,
    ) -> None:
        self._chance, self._server, self._client, self._journal = chance, server, client, journal
        self._at_work, self._lease_s = AtWork(begun), lease_s
        self._due: list[tuple[float, Callable[[], None]]] = []
        self._stopped: Child | None = None
        self._is_up = True
        self.workers: list[Child] = []
        self.injected: Counter[str] = Counter()
        self.events: list[Event] = []

    def tick(self, seconds: float, *, killing: bool) -> None:
        """The faults of so many seconds."""
        now = time.monotonic()
        due = [call for at, call in self._due if at <= now]
        self._due = [one for one in self._due if one[0] > now]
        for call in due:
            call()
        if killing:
            for fault, per_s in RATES.items():
                if self._chance.random() < per_s * seconds:
                    fault(self)

    def _later(self, after_s: float, call: Callable[[], None]) -> None:
        self._due.append((time.monotonic() + after_s, call))

    def _happened(self, what: str, pid: int = 0) -> None:
        self.injected[what] += 1
        self.events.append(Event(time.time(), what, pid))

    def _choose(self) -> Iterator[Child]:
        """A worker at work, if another one is: what is rendered must go on somewhere."""
        pids = self._at_work.pids()
        able = [one for one in self.workers if one.code is None and one.pid in pids and one is not self._stopped]
        if len(able) > 1:
            yield self._chance.choice(able)

    def sigkill(self) -> None:
        for worker in self._choose():
            worker.signal(signal.SIGKILL)
            self._happened("SIGKILL worker", worker.pid)

    def sigterm(self) -> None:
        for worker in self._choose():
            worker.signal(signal.SIGTERM)
            self._happened("SIGTERM", worker.pid)

    def sigstop(self) -> None:
        if self._stopped is None:
            for worker in self._choose():
                worker.signal(signal.SIGSTOP)
                self._stopped = worker
                self._happened("SIGSTOP", worker.pid)
                self._later(2 * self._lease_s, self._wake)

    def _wake(self) -> None:
        if self._stopped is not None:
            self._stopped.signal(signal.SIGCONT)
            self._stopped = None

    def crash(self) -> None:
        if self._is_up:
            self._is_up = False
            self._server.kill()
            self._happened("Redis killed")
            self._later(self._chance.uniform(0.0, 1.0), self._restart)

    def _restart(self) -> None:
        self._server.start()
        self._is_up = True

    def wipe(self) -> None:
        with contextlib.suppress(redis.RedisError):
            self._client.flushall()
            self._happened("Redis wiped")

    def fill(self) -> None:
        with contextlib.suppress(redis.RedisError):
            self._client.config_set("maxmemory", "1")
            self._happened("Redis full")
            self._later(FULL_S, self._make_room)

    def _make_room(self) -> None:
        with contextlib.suppress(redis.RedisError):  # one that was started anew has room
            self._client.config_set("maxmemory", "0")

    def bucket_away(self) -> None:
        self._journal.away(AWAY_S)
        self._happened("bucket away")

    def bucket_silent(self) -> None:
        self._journal.lose_answers(AWAY_S)

    def calm(self) -> None:
        """No fault lasts any longer."""
        for _, call in self._due:
            call()
        self._due.clear()


RATES: dict[Callable[[Faults], None], float] = {
    Faults.sigkill: 3.0,  # as many as there are workers at work but one
    Faults.sigterm: 0.05,
    Faults.sigstop: 0.05,
    Faults.crash: 0.15,
    Faults.wipe: 0.01,
    Faults.fill: 0.03,
    Faults.bucket_away: 0.02,
    Faults.bucket_silent: 0.05,
}
"""Per second."""
