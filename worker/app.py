"""The Celery app: `celery -A promptmill.worker.app ...`, or `promptmill worker`. No JAX, so Flower can use it."""

import os
import socket
from collections.abc import Sequence

from celery import Celery

from promptmill.producer.broker import celery_settings
from promptmill.producer.errors import PromptmillError
from promptmill.worker import celery_redis
from promptmill.worker.bootstep import CANNOT_WORK, PullJobs, say
from promptmill.worker.control import Control
from promptmill.worker.json_log import log_as_settings_say
from promptmill.worker.settings import WorkerSettings, slips_in
from promptmill.worker.tasks import register

app: Celery

TASKS = ("promptmill.celery_tasks",)
"""Modules of tasks that Celery imports when a worker starts; of others than the worker's own rooms, so by name."""


def make_app(settings: WorkerSettings, slips: Sequence[str] = ()) -> Celery:
    """A Celery app whose workers pull jobs as `settings` say, and take `promptmill.render` from any client.

    `slips` are warned about when a worker starts.
    """
    celery_redis.use_it()
    celery_app = Celery("promptmill", control=Control)
    celery_app.conf.update(celery_settings(settings.broker))
    celery_app.conf.worker_concurrency = settings.concurrency
    celery_app.conf.promptmill = settings
    celery_app.conf.promptmill_slips = slips
    celery_app.conf.include = TASKS
    log_as_settings_say(celery_app)
    celery_app.steps["worker"].add(PullJobs)
    register(celery_app)
    return celery_app


def default_hostname() -> str:
    """A node name of its own for each worker of a host."""
    return f"promptmill-{os.getpid()}@{socket.gethostname()}"


def __getattr__(name: str) -> Celery:
    """The app of the environment, made when Celery asks for it: `promptmill worker` makes one of its own."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        found = globals()["app"] = make_app(WorkerSettings.from_env(), slips_in(os.environ))
    except PromptmillError as error:  # which Celery would show with a traceback
        say(str(error), os.environ.get("PROMPTMILL_LOG_FORMAT", "text"))
        raise SystemExit(CANNOT_WORK) from error
    return found
