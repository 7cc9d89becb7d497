"""`promptmill.render`, the task that any Celery client may send: one prompt in, and at once where its image will be.

    app.send_task(
        "promptmill.render",
        kwargs={"prompt": "a red apple", "output": "gs://bucket/images", "steps": 30},
        queue="promptmill",
    )

The task enters a run of one job, named after the task's id, and waits for no image: whoever renders it claims it from
the job streams like any other. A task that is delivered twice enters the same run again, which changes nothing.
Imports no JAX: Flower loads it.
"""

import hashlib
import logging
from functools import cached_property
from typing import Any

import redis
from celery import Celery, Task, bootsteps
from celery.exceptions import Reject

from promptmill.producer.broker import client_of, eviction
from promptmill.producer.errors import PromptFileError, PromptmillError
from promptmill.producer.image_formats import PNG, Encoding
from promptmill.producer.outputs.open import open_output
from promptmill.producer.outputs.output import OutputUnavailable
from promptmill.producer.plan import PlanOptions, clean_name, plan_jobs
from promptmill.producer.prompts.expand import Expansion
from promptmill.producer.submit import submit
from promptmill.worker.events import TASK_NAME

logger = logging.getLogger(__name__)

AT_ONCE = 2
"""Tasks in the pool at once, at most: its other threads are for encoding and uploading images."""

KEEP_S = 24 * 3600
"""For how long Redis knows the run of a task after its end, in seconds: as long as Celery keeps the answer."""

AGAIN_S = 5.0  # pause before another try at an output that does not answer


class TaskRefused(ValueError):
    """What the task was given makes no job; its text is a sentence for the sender. A client without us can read it."""


class RenderTask(Task):
    """One prompt into the queue. Returns {"run": ..., "id": JOB_ID, "image": where it will be}."""

    name = TASK_NAME
    throws = (TaskRefused,)  # logged as a sentence, without a traceback
    ignore_result = False
    acks_late = True
    max_retries = None

    def run(
        self,
        prompt: str | None = None,
        output: str | None = None,
        *,
        priority: str = "normal",
        preset: str | None = None,
        image_format: str | None = None,
        quality: int | None = None,
        **fields: Any,
    ) -> dict[str, str]:
        """`fields` are a job's, by the names of a prompt file. Braces in the prompt are text. `image_format` is png,
        webp, jpeg or jxl; `quality` is 1 to 100."""
        if not isinstance(output, str) or not output:
            raise TaskRefused("output: is missing: where is the image to lie? A folder, or gs://bucket/prefix")
        _check_kinds(
            priority=(priority, str), preset=(preset, str), image_format=(image_format, str), quality=(quality, int)
        )
        try:
            encoding = Encoding(image_format or PNG.format, quality)
            options = PlanOptions(preset=preset, expansion=Expansion(plain=True), encoding=encoding)
            return self._enter(run_name(self.request.id), output, priority, options, {"prompt": prompt, **fields})
        except OutputUnavailable as error:
            raise self.retry(exc=error, countdown=AGAIN_S) from error
        except PromptFileError as error:  # of the one row there is: neither file nor line say anything
            raise TaskRefused(f"{error.field}: {error.problem}" if error.field else error.problem) from error
        except PromptmillError as error:
            raise TaskRefused(str(error)) from error
        except redis.RedisError as error:  # the message stays, for whoever has Redis back
            raise Reject(error, requeue=True) from error

    def _enter(self, run: str, url: str, priority: str, options: PlanOptions, fields: dict[str, Any]) -> dict[str, str]:
        with plan_jobs([fields], options) as plan:
            (job,) = plan
            root = open_output(url)
            submission = submit(plan, output=root, run=run, client=self._redis, priority=priority, keep_s=KEEP_S)
        return {"run": run, "id": job.id, "image": f"{submission.output}/{plan.image_name(job.id)}"}

    @cached_property
    def _redis(self) -> redis.Redis:
        client = client_of(self.app.conf.promptmill.broker)
        if warning := eviction(client):
            logger.warning(warning)
        return client


def _check_kinds(**given: tuple[Any, type]) -> None:
    """Raise TaskRefused for what is neither of its kind nor left out; a job's own fields are checked as such."""
    for name, (value, kind) in given.items():
        if value is not None and type(value) is not kind:
            raise TaskRefused(f"{name}: must be {'text' if kind is str else 'a whole number'}, got {value!r}")


def run_name(task_id: str) -> str:
    """The task's id; where that would not do for a run's name, what is left of it and a hash of the whole."""
    name = clean_name(task_id)
    return name if name == task_id else f"{name[:60]}-{hashlib.sha256(task_id.encode()).hexdigest()[:8]}"


class FewTasks(bootsteps.StartStopStep):
    """A step of the consumer: takes no more messages than AT_ONCE, and leaves a thread to the images if it can."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        # `task_acks_late` keeps a message counted until its task is over, so this bounds tasks, not only messages.
        consumer.initial_prefetch_count = max(1, min(AT_ONCE, consumer.pool.num_processes - 1))


def register(app: Celery) -> None:
    """Makes the task known to the app's workers, and where its answers go: the same Redis, for a day."""
    app.conf.update(
        result_backend=app.conf.broker_url,
        worker_enable_prefetch_count_reduction=False,  # after a reconnect it would forget FewTasks
    )
    app.register_task(RenderTask())
    app.steps["consumer"].add(FewTasks)
