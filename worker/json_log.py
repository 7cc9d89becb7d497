"""`--log-format json`: a JSON object per line, for collectors; a job's life is told with its run, index and id."""

import logging
import os
import sys
import threading
import traceback
from types import TracebackType
from typing import Any

from celery import Celery, signals

from promptmill.producer.json_line import json_line
from promptmill.producer.queue.queue import Claim
from promptmill.worker.observers import Observer

logger = logging.getLogger(__name__)


class JsonFormatter(logging.Formatter):
    """time, level, logger and message; what the record was given as `fields`; the exception, if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        more: dict[str, Any] = dict(getattr(record, "fields", {}))
        if record.exc_info and record.exc_info[0]:
            more["exception"] = "".join(traceback.format_exception(*record.exc_info))
        return json_line(record.levelname, record.getMessage(), logger=record.name, at=record.created, **more)


class JobLog(Observer):
    """A line for each step of a job's life."""

    def received(self, claim: Claim) -> None:
        self._log("received", claim)

    def started(self, claim: Claim) -> None:
        self._log("started", claim)

    def succeeded(self, claim: Claim, url: str, runtime_s: float) -> None:
        self._log("succeeded", claim, url=url, seconds=round(runtime_s, 3))

    def failed(self, claim: Claim, reason: str) -> None:
        self._log("failed", claim, reason=reason)

    def revoked(self, claim: Claim) -> None:
        self._log("revoked", claim)

    def retried(self, claim: Claim, reason: str) -> None:
        self._log("retried", claim, reason=reason)

    def _log(self, event: str, claim: Claim, **more: Any) -> None:
        of_job = {"run": claim.run, "index": claim.index, "job": claim.job.id, "shape": claim.shape.key}
        fields = {"event": event, **of_job, "deliveries": claim.deliveries, **more}
        logger.info("%s", event, extra={"fields": fields})


def json_log_of(app: Celery, hostname: str) -> Observer | None:
    """The log of jobs, where the settings want JSON."""
    return JobLog() if app.conf.promptmill.log_format == "json" else None


def log_as_settings_say(app: Celery) -> None:
    """Have Celery's log handlers write JSON, where the settings want it."""
    if app.conf.promptmill.log_format == "json":
        # Of handlers that libraries make for themselves, such as the hub's: they have no formatter.
        logging._defaultFormatter = JsonFormatter()  # type: ignore[attr-defined]
        from celery.apps import worker as celery_worker

        celery_worker.safe_say = _say_past_the_log
        sys.excepthook = _tell_of_the_end
        threading.excepthook = lambda told: _tell_of_the_end(told.exc_type, told.exc_value, told.exc_traceback)
        for signal in (signals.after_setup_logger, signals.after_setup_task_logger):
            signal.connect(_write_json, weak=False)


def _write_json(logger: logging.Logger, **kwargs: Any) -> None:
    for handler in logger.handlers:
        handler.setFormatter(JsonFormatter())


def _say_past_the_log(msg: str, f: Any = sys.__stderr__) -> None:
    """Celery's signal handlers write past every log, and must not wait for one."""
    os.write(f.fileno(), f"{json_line('INFO', msg.strip(), logger='celery.apps.worker')}\n".encode())


def _tell_of_the_end(kind: type[BaseException], error: BaseException | None, where: TracebackType | None) -> None:
    """What ends the process or a thread, which Python writes as text."""
    exception = "".join(traceback.format_exception(kind, error, where))
    sys.stderr.write(f"{json_line('CRITICAL', f'{kind.__name__}: {error}', exception=exception)}\n")
    sys.stderr.flush()


def said(sentence: str, *, json_is_wanted: bool) -> str:
    """The line for whoever started this worker, as its log is written."""
    return json_line("CRITICAL", sentence) if json_is_wanted else f"promptmill: {sentence}"
