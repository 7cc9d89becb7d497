"""Flower's configuration (its `--conf`): tasks are jobs, and the Broker tab has the queues of jobs.

Flower executes this file; what is named like one of its options is that option.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from flower import events as flower_events
from flower.utils import broker as flower_broker

from promptmill.producer.broker import client_of
from promptmill.producer.queue.queue import JobQueue
from promptmill.producer.queue.workers import Workers
from promptmill.worker.events import TASK_NAME
from promptmill.worker.flower_tasks import JobsState, literal

PROMPT_SHOWN = 120  # characters

tasks_columns = "args,kwargs,state,result,exception,worker,received,started,runtime,retries,uuid"
max_tasks = 100_000
"""Flower keeps as many, the newest; `promptmill status` counts all."""


def format_task(task: Any) -> Any:
    """A job's row: its prompt, where it stands in which run, and the address of its image."""
    if task.name == TASK_NAME:
        task.args = _prompt_of(task.args)
        kwargs = literal(task.kwargs)
        if isinstance(kwargs, dict) and "run" in kwargs and "index" in kwargs:
            task.kwargs = f"{kwargs['run']} / {kwargs['index']}, seed {kwargs.get('seed')}"
        task.result = literal(task.result)
    return task


def _prompt_of(args: Any) -> str:
    found = literal(args)
    prompt = str(found[0]) if isinstance(found, tuple | list) and found else str(args or "")
    return prompt if len(prompt) <= PROMPT_SHOWN else f"{prompt[: PROMPT_SHOWN - 1]}…"


Queues = Callable[[Any, Iterable[str]], Awaitable[list[dict[str, Any]]]]


def _with_jobs(queues: Queues) -> Queues:
    """Celery's queues, and ours after them: one per shape."""

    async def all_queues(self: Any, names: Iterable[str]) -> list[dict[str, Any]]:
        return [*await queues(self, names), *await asyncio.to_thread(_job_queues)]

    return all_queues


def _job_queues() -> list[dict[str, Any]]:
    from promptmill.worker.app import app

    client = client_of(app.conf.promptmill.broker)
    consumers = len(Workers(client).alive())
    return [
        {
            "name": f"jobs {shape.key}",
            "messages": waiting + held,
            "messages_unacknowledged": held,
            "messages_ready": waiting,
            "consumers": consumers,
        }
        for shape, (waiting, held) in JobQueue(client).backlog().items()
    ]


flower_broker.RedisBase.queues = _with_jobs(flower_broker.RedisBase.queues)
flower_events.EventsState = JobsState
