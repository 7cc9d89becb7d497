"""Every write to the bucket, written down by a proxy before it: names are unique in a bucket, so writes are counted.

The proxy can also refuse what it is asked for a while, or lose the answers to uploads that the server has taken.
"""

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from promptmill.producer.layout import job_of
from tests.gcs_wire import Answer, Wire


@dataclass(frozen=True)
class Write:
    """An upload that the server answered, as `status`. `generation` is the new object's, where it made one."""

    at: float  # time.time(), seconds
    name: str
    precondition: str | None
    """The generation that was to be there: "0" where no object was to be; None: whatever is there."""
    status: int
    generation: str


class Journal:
    """What was written through a Wire, and what that wire has done to it."""

    def __init__(self, wire: Wire, chance: random.Random) -> None:
        self._chance = chance
        self._lock = threading.Lock()
        self._away_until = self._losing_until = 0.0
        self.writes: list[Write] = []
        self.deletions: list[str] = []
        self.injected: Counter[str] = Counter()
        wire.refuse, wire.interfere = self._refuse, self._interfere

    def away(self, seconds: float) -> None:
        """Answer 503 to everything for a while."""
        self._away_until = time.monotonic() + seconds

    def lose_answers(self, seconds: float) -> None:
        """Lose half of the answers to uploads for a while."""
        self._losing_until = time.monotonic() + seconds

    def _refuse(self, request: str, body: bytes) -> int | None:
        if time.monotonic() >= self._away_until:
            return None
        with self._lock:
            self.injected["requests answered 503"] += 1
        return 503

    def _interfere(self, request: str, answer: Answer) -> Answer | None:
        if request.startswith("DELETE "):
            self.deletions.append(request)
        if not request.startswith("POST /upload/"):
            return answer
        with self._lock:
            self.writes.append(_write_of(request, answer))
            if time.monotonic() < self._losing_until and self._chance.random() < 0.5:
                self.injected["answers to uploads lost"] += 1
                return None
        return answer


def _write_of(request: str, answer: Answer) -> Write:
    asked = parse_qs(urlsplit(request.partition(" ")[2]).query)
    made = json.loads(answer[1]) if answer[0] == 200 else {}
    name = made.get("name") or asked.get("name", [""])[0]
    precondition = asked.get("ifGenerationMatch", [None])[0]
    return Write(time.time(), name, precondition, answer[0], str(made.get("generation", "")))


def doubled(writes: Iterable[Write], there: Mapping[str, str]) -> list[str]:
    """A sentence for each image that was written more than once, or otherwise than once where nothing was.

    `there` has the generation of each object that is in the bucket in the end.
    """
    taken = [write for write in writes if write.status == 200 and _is_image(write.name)]
    times = Counter(write.name for write in taken)
    first = {write.name: write.generation for write in reversed(taken)}
    wrong = [f"{name} was written {count} times" for name, count in times.items() if count > 1]
    wrong += [f"{w.name} was written over generation {w.precondition}" for w in taken if w.precondition != "0"]
    wrong += [
        f"{name} is generation {generation}, and {first.get(name, 'none')} was written"
        for name, generation in there.items()
        if _is_image(name) and first.get(name) != generation
    ]
    return wrong


def written_over(writes: Iterable[Write]) -> Counter[str]:
    """How often something else than an image was written where it was before, by kind: what `pack` makes anew."""
    times = Counter(write.name for write in writes if write.status == 200 and not _is_image(write.name))
    again: Counter[str] = Counter()
    for name, count in times.items():
        if count > 1:
            again[_kind(name)] += count - 1
    return again


def _in_run(name: str) -> str:
    return name.partition("/")[2]


def _is_image(name: str) -> bool:
    return job_of(_in_run(name)) is not None


def _kind(name: str) -> str:
    return _in_run(name).partition("/")[0]
