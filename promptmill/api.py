"""The queue from Python: submit jobs, follow them, take their images as they land.

    import promptmill

    handle = promptmill.submit(["a red apple", {"prompt": "a cat", "seed": 7}], output="out", steps=20)
    async for image in handle:
        print(image.index, image.path)

Workers render them: `promptmill worker`, on any host that reaches the same Redis and the same output.
"""

import asyncio
import os
import time
import warnings
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from promptmill.finished import FinishedImage, Landing
from promptmill.producer.broker import DEFAULT_URL, connect, eviction
from promptmill.producer.growth import Change, start_of
from promptmill.producer.job import Job
from promptmill.producer.outputs.open import open_output
from promptmill.producer.outputs.output import Output
from promptmill.producer.plan import AnyJob, Plan, PlanOptions, check_run_name, plan_jobs, plan_run
from promptmill.producer.plan_files import read_run
from promptmill.producer.prompts.expand import Expansion
from promptmill.producer.prompts.frames import Frame, is_frame, read_frame
from promptmill.producer.queue.control import cancel
from promptmill.producer.queue.ledger import Failure, Ledger, RunStatus
from promptmill.producer.submit import check_output
from promptmill.producer.submit import submit as submit_plan
from promptmill.producer.words import count
from promptmill.submit_settings import plan_options
from promptmill.verbs.options import env
from promptmill.verbs.runs import OVER, find_run

POLL_S = 0.5  # between two looks at the ledger


def submit(
    jobs: AnyJob | Iterable[AnyJob] | Path | Sequence[Path] | Frame,
    *,
    output: str,
    run: str | None = None,
    broker: str | None = None,
    priority: str = "normal",
    max_pending: int | None = None,
    preset: str | None = None,
    expansion: Expansion | None = None,
    append: bool = False,
    replace_plan: bool = False,
    **settings: Any,
) -> "RunHandle":
    """Put jobs into the queue, for workers to render, and return a handle of the run.

    A job is a prompt, a mapping of the fields that a prompt file's row has, or a Job; jobs may come from a generator of
    millions. A `pathlib.Path`, or several, are prompt files; a data frame (pandas, Polars, Arrow) is read as one, and
    its columns that are no fields are labels. `output` and `broker` are URLs as for the command line, where
    PROMPTMILL_BROKER counts too. The same jobs to the same output are the same run, and existing images are not
    rendered again. `settings` are fields for jobs that do not have them: `steps=20`, or several: `steps=[20, 30]`; and
    the command's flags by their names: `num_images_per_prompt=4`, `run_seed=7`, `prompt_column="caption"`,
    `labels=["class"]`, `on_error="skip"`, `image_format="webp"`. Braces in prompts are text, unless `expand`,
    `combinatorial` or `wildcards` is given, or an `expansion`, which says all of that at once.

    A named run with another plan grows by jobs that were added at the end; `append` adds all new jobs, `replace_plan`
    makes these jobs the run's plan. `max_pending` is the most jobs in Redis: this call waits for workers before it
    enqueues more.

    Raises PromptFileErrors for wrong jobs, before anything is entered; JobError, ModelNameError, PlanError,
    LedgerError, BrokerError, OutputError.
    """
    root, sources = open_output(output), _sources(jobs)
    root.reach()
    change = Change.REPLACE if replace_plan else Change.APPEND if append else Change.NONE
    start = start_of(read_run(root.child(check_run_name(run))), sources, change) if run else 0
    options = plan_options(settings, preset, expansion, start)
    with _plan(jobs, options) as plan:
        name = check_run_name(run) if run else plan.default_name("run", root.url)
        client = connect(_broker(broker))  # first, as what is refused leaves no folder behind
        if warning := eviction(client):
            warnings.warn(warning, stacklevel=2)
        check_output(plan, root, name, client)
        submit_plan(
            plan,
            output=root,
            run=name,
            client=client,
            sources=sources,
            priority=priority,
            max_pending=max_pending,
            change=change,
        )
    return RunHandle(name, broker=broker)


class RunHandle:
    """A run that Redis knows, to be followed. `RunHandle(name)` follows any run of this Redis, from any process.

    `for image in handle` and `async for image in handle` yield each finished image once, those included that were there
    before, and end when the run is finished or cancelled. What failed is in `failures()`.

    Raises BrokerError, LedgerError for a run that this Redis does not know.
    """

    def __init__(self, run: str, *, broker: str | None = None) -> None:
        self.run = run
        self._client = connect(_broker(broker))
        self._output: Output = open_output(self.status().output).child(run)

    def __repr__(self) -> str:
        return f"RunHandle({self.run!r}, output={self.output!r})"

    @property
    def output(self) -> str:
        """Where the run's images and plan lie: a folder, or gs://bucket/prefix."""
        return self._output.url

    def status(self) -> RunStatus:
        """The run's state, counts and rate. Raises LedgerError if it was purged, or has expired."""
        return find_run(self._client, self.run)

    def failures(self) -> list[Failure]:
        """The jobs that were given up, in the run's order, each with its reason."""
        return sorted(Ledger(self._client).failures(self.run), key=lambda failure: failure.index)

    def cancel(self) -> int:
        """Cancel the run; return how many images will not be rendered."""
        return cancel(self._client, self.run)

    def wait(self, timeout: float | None = None, poll: float = POLL_S) -> RunStatus:
        """Wait until the run is finished or cancelled, and return its status.

        Redis is asked every `poll` seconds. Raises TimeoutError after `timeout` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while (status := self.status()).state not in OVER:
            if deadline is not None and time.monotonic() >= deadline:
                left = f"{status.left} of {count(status.images, 'image')} left"
                raise TimeoutError(f"run {self.run!r}: {left} after {timeout:g} s")
            time.sleep(poll)
        return status

    def __iter__(self) -> Iterator[FinishedImage]:
        for batch in self._landing():
            yield from batch
            if not batch:
                time.sleep(POLL_S)

    async def __aiter__(self) -> AsyncIterator[FinishedImage]:
        landing = self._landing()
        while (batch := await asyncio.to_thread(next, landing, None)) is not None:
            for image in batch:
                yield image
            if not batch:
                await asyncio.sleep(POLL_S)

    def _landing(self) -> Iterator[list[FinishedImage]]:
        """What lands, in batches; an empty one where there is nothing new now."""
        landing = Landing(self._client, self.run, self._output)
        while True:
            over = self.status().state in OVER  # asked first: what lands after it is seen all the same
            yield from landing.new()
            if over:
                return
            yield []


def _plan(jobs: Any, options: PlanOptions) -> Plan:
    """The plan of whatever `submit` takes."""
    if isinstance(jobs, Path):
        jobs = [jobs]
    if isinstance(jobs, list | tuple) and jobs and all(isinstance(job, Path) for job in jobs):
        return plan_run([str(path) for path in jobs], options)
    if is_frame(jobs):
        jobs = read_frame(jobs, options.reading)
    return plan_jobs([jobs] if isinstance(jobs, str | Mapping | Job) else jobs, options)


def _sources(jobs: Any) -> list[str]:
    """The files' names, as the run's record keeps them."""
    paths = [jobs] if isinstance(jobs, Path) else jobs if isinstance(jobs, list | tuple) else []
    return [path.name for path in paths if isinstance(path, Path)]


def _broker(url: str | None) -> str:
    return url or os.environ.get(env("broker")) or DEFAULT_URL
