"""Outputs that do not work from this host: nothing is claimed for them for a while, and `status` says why.

What the storage refuses to everybody here (a read-only file system, no permission, no such bucket) is no job's fault:
the job goes back, for other workers or for later. After a pause the worker tries again with real jobs; the pause
doubles for as long as they are refused, and the first image that lands ends the trouble.
"""

import logging
import threading
import time
from dataclasses import dataclass

from promptmill.worker.self_report import SelfReport

logger = logging.getLogger(__name__)

FIRST_PAUSE_S = 5.0
MAX_PAUSE_S = 300.0


@dataclass
class _Refusal:
    pause_s: float
    until: float  # time.monotonic()


class OutputTrouble:
    """The outputs in trouble, by URL. Thread-safe."""

    def __init__(self, report: SelfReport) -> None:
        self._report = report
        self._lock = threading.Lock()
        self._refusals: dict[str, _Refusal] = {}
        self._away: set[str] = set()

    def refused(self, url: str, why: str) -> None:
        """A write was refused. The jobs of one batch are refused together: that is one refusal."""
        with self._lock:
            now = time.monotonic()
            last = self._refusals.get(url)
            if last and now < last.until:
                return
            pause_s = min(2 * last.pause_s, MAX_PAUSE_S) if last else FIRST_PAUSE_S
            self._refusals[url] = _Refusal(pause_s, now + pause_s)
            self._report.trouble(url, f"{why} (next try in {pause_s:.0f} s)")
        logger.error("nothing is claimed for %s for %.0f s: %s", url, pause_s, why)

    def away(self, url: str, why: str) -> None:
        """The storage does not answer, or is full: the job waits for it here."""
        with self._lock:
            if url not in self._refusals:
                self._away.add(url)
                self._report.trouble(url, why)

    def worked(self, url: str) -> None:
        """An image landed."""
        with self._lock:
            if url in self._refusals or url in self._away:
                self._refusals.pop(url, None)
                self._away.discard(url)
                self._report.cured(url)
                logger.info("%s takes images again", url)

    def to_pass_over(self) -> list[str]:
        """The outputs for which nothing is to be claimed now."""
        with self._lock:
            now = time.monotonic()
            return sorted(url for url, refusal in self._refusals.items() if now < refusal.until)
