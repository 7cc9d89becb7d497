"""The worker's bootstep: pulling lives and dies with the Celery worker. Imports no JAX before it starts."""

from typing import Any

from celery import bootsteps
from celery.concurrency.thread import TaskPool as ThreadPool

NO_OTHER_POOL = (
    "promptmill's worker needs Celery's `threads` pool, got {}: one process has to own all of the host's accelerators, "
    "and a forked JAX is broken. Start it with `promptmill worker`, or "
    "`celery -A promptmill.worker.app worker --pool threads`"
)


class Puller(bootsteps.StartStopStep):
    """A step of the worker, not of its consumer: it is not started anew at each reconnect to the broker."""

    requires = ("celery.worker.components:Pool", "celery.worker.components:Timer")

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        if not issubclass(parent.pool_cls, ThreadPool):
            # Not an exception of Celery's: those end in a traceback, and this is a sentence for whoever typed it.
            raise SystemExit(NO_OTHER_POOL.format(parent.pool_cls.__module__.rpartition(".")[2]))
        self._loop: Any = None

    def start(self, parent: Any) -> None:
        from promptmill.worker.host import PullLoop

        self._loop = PullLoop(parent.app.conf.promptmill, parent)
        self._loop.start()

    def stop(self, parent: Any) -> None:
        """Warm shutdown: finish what is held, and give back what takes too long."""
        if self._loop is not None:
            self._loop.stop(parent.app.conf.promptmill.drain_s)

    def terminate(self, parent: Any) -> None:
        """Cold shutdown: give back."""
        if self._loop is not None:
            self._loop.stop(0.0)
