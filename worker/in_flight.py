"""What a worker holds, as its threads share it: claims, and slots for batches in flight."""

import threading
import time
from collections import deque
from collections.abc import Sequence

from promptmill.producer.queue.queue import Claim

RATE_WINDOW_S = 60.0


class InFlight:
    """The claims that are this worker's now, for the keeper to renew and for the end to give back. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._claims: dict[tuple[str, str, str], Claim] = {}

    def add(self, claims: Sequence[Claim]) -> None:
        with self._changed:
            self._claims.update({_name(claim): claim for claim in claims})

    def remove(self, claims: Sequence[Claim]) -> None:
        with self._changed:
            for claim in claims:
                self._claims.pop(_name(claim), None)
            self._changed.notify_all()

    def all(self) -> list[Claim]:
        with self._changed:
            return list(self._claims.values())

    def wait_until_empty(self, timeout_s: float) -> bool:
        """Whether nothing is held any more within the time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._claims, timeout_s)


def _name(claim: Claim) -> tuple[str, str, str]:
    return claim.run, claim.shape.key, claim.entry


class Slots:
    """Slots for batches in flight. A batch takes one, or all of them to be alone. Thread-safe."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = count
        self._changed = threading.Condition()

    def take(self, count: int, timeout_s: float) -> bool:
        """Takes `count` slots at once, or none within the time."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._free >= count, timeout_s):
                return False
            self._free -= count
            return True

    def give(self, count: int) -> None:
        with self._changed:
            self._free += count
            self._changed.notify_all()


class Latch:
    """Gives a batch's slots back when the last of its jobs is finished. Thread-safe."""

    def __init__(self, jobs: int, slots: Slots, taken: int) -> None:
        self._left = jobs
        self._slots = slots
        self._taken = taken
        self._lock = threading.Lock()

    def one_less(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left:
                return
        self._slots.give(self._taken)


class Rate:
    """Images so far, and images a second over the last minute. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._times: deque[float] = deque(maxlen=100_000)
        self.images = 0

    def count(self) -> None:
        with self._lock:
            self.images += 1
            self._times.append(time.monotonic())

    def images_per_s(self) -> float:
        with self._lock:
            now = time.monotonic()
            while self._times and self._times[0] < now - RATE_WINDOW_S:
                self._times.popleft()
            return round(len(self._times) / (now - self._times[0]), 3) if len(self._times) > 1 else 0.0
