"""The worker's bootstep: its threads live and die with the Celery worker. Imports no JAX before it starts."""

import dataclasses
import logging
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from celery import Celery, bootsteps, signals
from celery.concurrency.thread import TaskPool as ThreadPool

from promptmill.producer.errors import PromptmillError
from promptmill.worker.celery_requests import CeleryRequests
from promptmill.worker.events import JobEvents
from promptmill.worker.json_log import json_log_of, said
from promptmill.worker.metrics import metrics_of
from promptmill.worker.observers import Observer, Observers
from promptmill.worker.traces import traces_of

logger = logging.getLogger(__name__)

LISTENERS: Sequence[Callable[[Celery, str], Observer | None]] = (
    JobEvents,
    CeleryRequests,
    metrics_of,
    traces_of,
    json_log_of,
)
"""Who hears of each job's life; made with the app and the worker's name, where the settings want it."""

CANNOT_WORK = 2
"""Exit code of a worker that cannot start."""

INTERRUPTED = 130
"""Exit code after Ctrl-C, as a shell has it: 128 and the signal's number."""

NO_OTHER_POOL = (
    "promptmill's worker needs Celery's `threads` pool, got {}: one process has to own all of the host's accelerators, "
    "and a forked JAX is broken. Start it with `promptmill worker`, or "
    "`celery -A promptmill.worker.app worker --pool threads`"
)


def say(sentence: str, log_format: str = "text") -> None:
    """Tell whoever started this worker, whatever its log's level is."""
    sys.stderr.write(f"{said(sentence, json_is_wanted=log_format == 'json')}\n")
    sys.stderr.flush()


class PullJobs(bootsteps.StartStopStep):
    """A step of the worker, not of its consumer: it is not started anew at each reconnect to the broker."""

    requires = ("celery.worker.components:Pool", "celery.worker.components:Timer")

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        if not issubclass(parent.pool_cls, ThreadPool):
            # Not an exception of Celery's: those end in a traceback, and this is a sentence for whoever typed it.
            say(
                NO_OTHER_POOL.format(parent.pool_cls.__module__.rpartition(".")[2]),
                parent.app.conf.promptmill.log_format,
            )
            raise SystemExit(CANNOT_WORK)
        # No worker needs all others' events, and a killed one leaves its queue of them behind. Celery hands these
        # options to its consumer after this step is made.
        parent.options["without_gossip"] = True
        self._host: Any = None
        self._signal: str | None = None
        signals.worker_shutting_down.connect(self._hear, weak=False)

    def _hear(self, sig: str, **kwargs: Any) -> None:
        self._signal = sig

    def start(self, parent: Any) -> None:
        from promptmill.worker.fetch import Fetcher
        from promptmill.worker.host import Host
        from promptmill.worker.keep import Keeper
        from promptmill.worker.metrics_server import serve_metrics
        from promptmill.worker.pull import Puller

        for slip in parent.app.conf.promptmill_slips:
            logger.warning(slip)
        try:
            listeners = [one for one in (listener(parent.app, parent.hostname) for listener in LISTENERS) if one]
            host = Host(parent.app.conf.promptmill, parent, Observers(listeners))
            serve_metrics(host, listeners)
        except PromptmillError as error:
            say(str(error), parent.app.conf.promptmill.log_format)
            raise SystemExit(CANNOT_WORK) from error
        self._host = host
        for part in (Puller, Fetcher, Keeper):
            threading.Thread(target=part(self._host).run, name=part.__name__.lower(), daemon=True).start()

    def info(self, parent: Any) -> dict[str, Any]:
        """What `celery inspect stats` tells of this step, and Flower on a worker's page."""
        if self._host is None:
            return {}
        report = dataclasses.asdict(self._host.report.now())
        return {"promptmill": {name: said for name, said in report.items() if said and name not in ("name", "at")}}

    def stop(self, parent: Any) -> None:
        """Warm shutdown: finish what is held, and give back what takes too long."""
        self._stop(parent, parent.app.conf.promptmill.drain_s)

    def terminate(self, parent: Any) -> None:
        """Cold shutdown: give back."""
        self._stop(parent, 0.0)

    def _stop(self, parent: Any, drain_s: float) -> None:
        if self._host is None:
            return
        self._host.stop(drain_s)
        if self._host.fatal:
            say(self._host.fatal, parent.app.conf.promptmill.log_format)
            parent.exitcode = CANNOT_WORK
        elif self._signal == "SIGINT":
            parent.exitcode = INTERRUPTED
