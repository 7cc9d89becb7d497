"""A job's life on this worker, as calls. Whoever wants to hear of it is an Observer; the loop knows none by name.

    received    claimed: it is this worker's now
    started     its batch goes to the device
    then one of
    succeeded   its image is safe
    failed      given up, for a reason that a user can read
    revoked     dropped, as somebody asked for
    retried     given back: by a worker that stops, or for another try

and how the host fares:

    spent       a stage of the way took so many seconds
    batched     a batch came back from the device, with so many jobs in so many slots
    compiled    a program was made
    wrote       an image was uploaded
    lost        another worker has what was held here

A listener is a file with an Observer and a row in worker/bootstep.py's LISTENERS. It watches: what it raises is logged,
and changes nothing for the job.
"""

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence

from promptmill.producer.job import Shape
from promptmill.producer.queue.queue import Claim

logger = logging.getLogger(__name__)

STAGES = ("claim", "tokenise", "device", "fetch", "encode", "upload", "settle")
"""Of a job's way through a worker: from Redis, tokens and noise, rendered, to the host, a file, the output, Redis."""


class Observer:
    """Hears nothing of anything; override what you want to hear. Called from several threads, and not to block."""

    def received(self, claim: Claim) -> None: ...

    def started(self, claim: Claim) -> None: ...

    def succeeded(self, claim: Claim, url: str, runtime_s: float) -> None:
        """The image lies at `url`; `runtime_s` are the seconds since its batch was started."""

    def failed(self, claim: Claim, reason: str) -> None: ...

    def revoked(self, claim: Claim) -> None: ...

    def retried(self, claim: Claim, reason: str) -> None: ...

    def spent(self, stage: str, seconds: float, jobs: int = 1) -> None:
        """A stage (STAGES) of `jobs` jobs together took so long."""

    def batched(self, shape: Shape, jobs: int, slots: int, busy_s: float) -> None:
        """The batch kept the device busy for `busy_s` seconds."""

    def compiled(self, shape: Shape, seconds: float) -> None: ...

    def wrote(self, claim: Claim, size: int) -> None:
        """The image's file has `size` bytes."""

    def lost(self, claims: Sequence[Claim]) -> None: ...

    def close(self) -> None:
        """Nothing more will be told."""


@contextlib.contextmanager
def timed(observer: Observer, stage: str, jobs: int = 1) -> Iterator[None]:
    """Tell how long the block took, unless it raises."""
    started = time.monotonic()
    yield
    observer.spent(stage, time.monotonic() - started, jobs)


class Observers(Observer):
    """Several observers as one; none of them can harm the job, nor another observer."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers

    def received(self, claim: Claim) -> None:
        self._tell("received", claim)

    def started(self, claim: Claim) -> None:
        self._tell("started", claim)

    def succeeded(self, claim: Claim, url: str, runtime_s: float) -> None:
        self._tell("succeeded", claim, url, runtime_s)

    def failed(self, claim: Claim, reason: str) -> None:
        self._tell("failed", claim, reason)

    def revoked(self, claim: Claim) -> None:
        self._tell("revoked", claim)

    def retried(self, claim: Claim, reason: str) -> None:
        self._tell("retried", claim, reason)

    def spent(self, stage: str, seconds: float, jobs: int = 1) -> None:
        self._tell("spent", stage, seconds, jobs)

    def batched(self, shape: Shape, jobs: int, slots: int, busy_s: float) -> None:
        self._tell("batched", shape, jobs, slots, busy_s)

    def compiled(self, shape: Shape, seconds: float) -> None:
        self._tell("compiled", shape, seconds)

    def wrote(self, claim: Claim, size: int) -> None:
        self._tell("wrote", claim, size)

    def lost(self, claims: Sequence[Claim]) -> None:
        self._tell("lost", claims)

    def close(self) -> None:
        self._tell("close")

    def _tell(self, what: str, *args: object) -> None:
        for observer in self._observers:
            try:
                getattr(observer, what)(*args)
            except Exception:
                logger.exception("observer %s failed on %s", type(observer).__name__, what)
