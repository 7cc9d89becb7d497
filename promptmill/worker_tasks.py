"""Ordinary Celery tasks for the workers of a broker: how they are sent, and what they answer.

A task answers with a dict: its data, or {"error": a sentence}.
"""

import time
from typing import Any

from promptmill.producer.errors import PromptmillError

STALLED_S = 600.0
"""After so many seconds without an answer the sender does what is left itself: a task went down with its worker."""

PING_S = 3.0
LOOK_S = 0.2


class NoWorkersError(PromptmillError):
    """No worker answers."""


class TaskError(PromptmillError):
    """A worker could not do its part; the text is the worker's."""


def worker_app(broker: str) -> Any:
    """A Celery app that sends tasks to the workers of a broker. Raises NoWorkersError."""
    from celery import Celery

    from promptmill.producer.broker import celery_settings

    app = Celery("promptmill-pack")
    app.conf.update(celery_settings(broker), result_backend=celery_settings(broker)["broker_url"])
    if not app.control.ping(timeout=PING_S):
        raise NoWorkersError("no worker answers: start `promptmill worker`, or pack without --by-workers")
    return app


def wait_for(result: Any, patience_s: float) -> bool:
    """Whether the task ends within so many seconds."""
    deadline = time.monotonic() + patience_s
    while not result.ready():
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_S)
    return True


def answer_of(result: Any) -> dict[str, str]:
    """What a task that has ended answered, which is then forgotten. Raises TaskError."""
    answer = result.get(propagate=False)
    result.forget()
    if not isinstance(answer, dict) or "error" in answer:
        raise TaskError(answer["error"] if isinstance(answer, dict) else f"a worker failed: {answer}")
    return answer
