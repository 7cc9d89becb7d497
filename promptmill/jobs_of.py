"""The jobs of a run that a person looks for: by index, label or words of the prompt, and what became of each."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from promptmill.producer.errors import PlanError
from promptmill.producer.image_formats import Encoding
from promptmill.producer.layout import Look, image_name
from promptmill.producer.outputs.output import ObjectNotFound, Output
from promptmill.producer.plan_builder import JOBS_PER_FILE, unpack
from promptmill.producer.plan_files import page_names, read_run
from promptmill.producer.plan_lines import PlannedJob, PlanReader
from promptmill.producer.presence import look_at


@dataclass(frozen=True)
class Wanted:
    """Which jobs: of these ranges of indexes (where there are any), with these labels, with this text in the prompt."""

    indexes: Sequence[range] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    prompt: str | None = None

    def takes(self, job: PlannedJob, prompt: str) -> bool:
        """Whether a job is wanted. Text is found whatever its case; labels are compared as they are written."""
        told = job.labels or {}
        return (
            (not self.indexes or any(job.index in part for part in self.indexes))
            and all(name in told and _text(told[name]) == value for name, value in self.labels.items())
            and (self.prompt is None or self.prompt.casefold() in prompt.casefold())
        )

    def page(self, first: int, count: int) -> bool:
        """Whether a plan file with these indexes can hold any."""
        return not self.indexes or any(part.start < first + count and part.stop > first for part in self.indexes)


@dataclass(frozen=True)
class FoundJob:
    """A job of a run. `url` is where its image lies or will lie.

    `state` is done, failed or open; broken where its image is cut off or empty, taken where its name is
    something else's.
    """

    index: int
    id: str
    state: str
    url: str
    prompt: str
    seed: int
    labels: Mapping[str, Any]
    reason: str | None = None
    row: str | None = None
    """The file and line of its row."""


def jobs_of(output: Output, wanted: Wanted, failures: Mapping[int, str]) -> Iterator[FoundJob]:
    """The wanted jobs of a run in order, read from its plan; `failures` are what the ledger knows, by index.

    Raises PlanError where no run lies in `output`, OutputError.
    """
    run = _run_in(output)
    page_jobs = int(run.get("jobs_per_plan_file", JOBS_PER_FILE))
    reader, extension = PlanReader(run["settings"]), Encoding.of_run(run).extension
    for number, name in enumerate(page_names(run)):
        if wanted.page(number * page_jobs, page_jobs):
            yield from _in_page(output, reader, name, wanted, failures, extension)


def _in_page(
    output: Output, reader: PlanReader, name: str, wanted: Wanted, failures: Mapping[int, str], extension: str
) -> Iterator[FoundJob]:
    for line in _lines(output, name):
        job = reader.job(line, False)
        own = json.loads(job.own_json)
        if wanted.takes(job, own["prompt"]):
            yield _found(output, job, own, failures.get(job.index), extension)


_STATES = {None: "open", Look.BROKEN: "broken", Look.FOREIGN: "taken"}


def _found(output: Output, job: PlannedJob, own: Mapping[str, Any], reason: str | None, extension: str) -> FoundJob:
    name = image_name(job.id, extension)
    there = look_at(output, name, job.id)
    state = "done" if there is Look.OURS else "failed" if reason is not None else _STATES[there]
    return FoundJob(
        job.index,
        job.id,
        state,
        f"{output.url}/{name}",
        own["prompt"],
        own["seed"],
        job.labels or {},
        reason if state == "failed" else None,
        job.row,
    )


def planned_at(output: Output, indexes: Sequence[int]) -> Iterator[PlannedJob]:
    """The jobs of a run at these indexes, which are in order; only those files of its plan are read.

    Raises PlanError where no run lies in `output`, OutputError.
    """
    run = _run_in(output)
    names, page_jobs = page_names(run), int(run.get("jobs_per_plan_file", JOBS_PER_FILE))
    reader = PlanReader(run["settings"])
    for number, some in groupby(indexes, lambda index: index // page_jobs):
        lines = _lines(output, names[number]) if number < len(names) else []
        at = [index % page_jobs for index in some]
        yield from (reader.job(lines[line], False) for line in at if line < len(lines))


def _run_in(output: Output) -> dict[str, Any]:
    run = read_run(output)
    if run is None:
        raise PlanError(f"{output.url} has no run")
    return run


def _lines(output: Output, name: str) -> list[str]:
    try:
        return unpack(output.get(name))
    except ObjectNotFound as error:
        raise PlanError(f"{output.url}/{name} is missing: the plan is incomplete") from error


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
