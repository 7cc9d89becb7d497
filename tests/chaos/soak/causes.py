"""Why a job was rendered more than once, and how long its next worker took to come."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """A fault: what, when (time.time(), seconds) and, where it met one process, which."""

    at: float
    what: str
    pid: int = 0


Begun = Mapping[str, Sequence[tuple[float, int]]]
"""By job: when it was begun to be rendered, and by which process."""

OF_ITS_WORKER = {
    "SIGKILL worker": "its worker was killed",
    "SIGSTOP": "its worker was stopped beyond the lease",
    "SIGTERM": "its worker was told to end",
}
OF_ALL = {
    "Redis wiped": "Redis was wiped",
    "Redis killed": "Redis was killed",
    "Redis full": "Redis was full",
    "bucket away": "the bucket was away",
}
UNEXPLAINED = "none of these: its lease was not renewed in time"


def read_begun(text: str) -> Begun:
    """What workers wrote down; a line that a SIGKILL cut short is left out."""
    begun: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for line in text.splitlines():
        if len(words := line.split()) == 3 and len(words[2]) == 32:
            begun[words[2]].append((float(words[0]), int(words[1])))
    return {job: sorted(times) for job, times in begun.items()}


def causes(begun: Begun, events: Sequence[Event]) -> Counter[str]:
    """Of each rendering after a job's first one, what had happened since the one before."""
    found: Counter[str] = Counter()
    for times in begun.values():
        for (before, who), (after, _) in itertools.pairwise(times):
            since = [event for event in events if before <= event.at <= after]
            own = [OF_ITS_WORKER[one.what] for one in since if one.pid == who and one.what in OF_ITS_WORKER]
            of_all = [why for what, why in OF_ALL.items() if any(one.what == what for one in since)]
            found[[*own, *of_all, UNEXPLAINED][0]] += 1
    return found


def after_sigkill(begun: Begun, events: Sequence[Event]) -> list[float]:
    """Seconds from a worker's death until another began a job that the dead one had begun and not finished."""
    by_worker: dict[int, list[Sequence[tuple[float, int]]]] = defaultdict(list)
    for times in begun.values():
        for who in {pid for _, pid in times}:
            by_worker[who].append(times)
    found = []
    for event in events:
        if event.what == "SIGKILL worker":
            for times in by_worker[event.pid]:
                mine = [at for at, who in times if who == event.pid and at < event.at]
                after = [at for at, who in times if who != event.pid and at > event.at]
                if mine and after:
                    found.append(min(after) - event.at)
    return found


def after_sigterm(begun: Begun, events: Sequence[Event]) -> list[float]:
    """Seconds from the signal until another worker began a job."""
    starts = sorted((at, pid) for times in begun.values() for at, pid in times)
    told = [event for event in events if event.what == "SIGTERM"]
    firsts = (next((at for at, pid in starts if at > one.at and pid != one.pid), None) for one in told)
    return [at - one.at for at, one in zip(firsts, told, strict=True) if at is not None]
