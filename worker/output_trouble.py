"""Outputs that do not work from this host: nothing is claimed for them for a while, and `status` says why.

What the storage refuses to everybody here (a read-only file system, no permission, no such bucket) is no job's fault:
the job goes back, for other workers or for later. After a pause the worker tries again with real jobs; the pause
grows for as long as they are refused, and the first image that lands ends the trouble.

An output may also refuse one object alone (a permission on a prefix, a retention policy). That shows when images land
after it was refused, and then it is refused again, and nothing else is: then it is the job's own trouble.
"""

import enum
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from promptmill.producer.backoff import backoff
from promptmill.worker.self_report import SelfReport

logger = logging.getLogger(__name__)

FIRST_PAUSE_S = 5.0
MAX_PAUSE_S = 300.0
SUSPECTS_KEPT = 1000  # jobs of an output that are remembered as refused


class Blame(enum.Enum):
    """Whose trouble a refused write is."""

    OUTPUT = "the output's"
    OUTPUT_AGAIN = "the output's, which has refused this job before: others are to be tried first"
    JOB = "the job's: the output takes others"


def _pauses() -> Iterator[float]:
    return backoff(first_s=FIRST_PAUSE_S, most_s=MAX_PAUSE_S)


@dataclass
class _Standing:
    """What is known of one output. Times are time.monotonic()."""

    pauses: Iterator[float] = field(default_factory=_pauses)
    paused_until: float = 0.0
    is_told: bool = False
    """Whether `status` shows its trouble."""
    suspects: dict[str, bool] = field(default_factory=dict)
    """The ids of jobs that were refused, the oldest first; True: an image has landed since."""
    refused_now: set[str] = field(default_factory=set)
    """The ids of jobs that were refused since the last image landed."""


class OutputTrouble:
    """The outputs in trouble, by URL. Thread-safe."""

    def __init__(self, report: SelfReport) -> None:
        self._report = report
        self._lock = threading.Lock()
        self._standings: dict[str, _Standing] = {}

    def refused(self, url: str, job: str, why: str) -> Blame:
        """A write was refused. The jobs of one batch are refused together: that is one pause."""
        with self._lock:
            one = self._standings.setdefault(url, _Standing())
            known, proven = job in one.suspects, one.suspects.get(job, False)
            one.refused_now.add(job)
            if proven and one.refused_now == {job}:
                return Blame.JOB
            one.suspects.setdefault(job, False)
            while len(one.suspects) > SUSPECTS_KEPT:
                del one.suspects[next(iter(one.suspects))]
            if time.monotonic() >= one.paused_until:
                self._pause(url, one, why)
            return Blame.OUTPUT_AGAIN if known else Blame.OUTPUT

    def _pause(self, url: str, one: _Standing, why: str) -> None:
        pause_s = next(one.pauses)
        one.paused_until, one.is_told = time.monotonic() + pause_s, True
        self._report.trouble(url, f"{why} (next try in {pause_s:.0f} s)")
        logger.error("nothing is claimed for %s for %.1f s: %s", url, pause_s, why)

    def away(self, url: str, why: str) -> None:
        """The storage does not answer, or is full: the job waits for it here."""
        with self._lock:
            one = self._standings.setdefault(url, _Standing())
            if not one.refused_now:
                one.is_told = True
                self._report.trouble(url, why)

    def worked(self, url: str, job: str) -> None:
        """The image of a job landed."""
        with self._lock:
            one = self._standings.get(url)
            if one is None:
                return
            one.suspects.pop(job, None)
            one.suspects = dict.fromkeys(one.suspects, True)
            one.pauses, one.paused_until, one.refused_now = _pauses(), 0.0, set()
            if one.is_told:
                one.is_told = False
                self._report.cured(url)
                logger.info("%s takes images again", url)

    def to_pass_over(self) -> list[str]:
        """The outputs for which nothing is to be claimed now."""
        with self._lock:
            now = time.monotonic()
            return sorted(url for url, one in self._standings.items() if now < one.paused_until)
