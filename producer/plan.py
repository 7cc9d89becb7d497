"""Rows -> the run's plan, written to the output.

The plan is the run's jobs in order, JOBS_PER_FILE a file, as `plan/00000.jsonl.zst`; a line is
`{"id": JOB_ID, "index": PLACE_IN_RUN, "job": {FIELDS}}`. `run.json` is written after the last plan file, so a run with
a `run.json` has its whole plan. Both are written once: the same command run again finds its own plan there.
"""

import datetime
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import zstandard

from producer.errors import JobError, ModelNameError, PlanError, PromptFileError, PromptFileErrors
from producer.job import ALIASES, Job, JobId, Shape, canonical_json, canonical_names
from producer.models import DEFAULT_MODEL, model_defaults, resolve_model
from producer.output import Existing, ObjectNotFound, Output
from producer.presets import over
from producer.prompt_files import Row, read_prompt_file

JOBS_PER_FILE = 10_000
MAX_LISTED_ERRORS = 20
RUN_JSON = "run.json"


@dataclass(frozen=True)
class Plan:
    """A run's jobs in order. Rows that mean the same job share one image: the first of them is rendered."""

    jobs: Sequence[Job]

    @cached_property
    def ids(self) -> list[JobId]:
        """Each job's id, in the run's order."""
        return [job.id for job in self.jobs]

    @cached_property
    def first_index(self) -> dict[JobId, int]:
        """Each distinct job's first place in the run, in the run's order."""
        first: dict[JobId, int] = {}
        for index, job_id in enumerate(self.ids):
            first.setdefault(job_id, index)
        return first

    @cached_property
    def digest(self) -> str:
        """A hash of the ids in order: two plans with one digest are the same plan."""
        digest = hashlib.sha256()
        for job_id in self.ids:
            digest.update(job_id.encode())
        return digest.hexdigest()

    @cached_property
    def shapes(self) -> dict[Shape, int]:
        """The distinct jobs of each shape, counted."""
        counts: dict[Shape, int] = {}
        for index in self.first_index.values():
            shape = self.jobs[index].shape
            counts[shape] = counts.get(shape, 0) + 1
        return counts

    def default_name(self, stem: str, output_url: str) -> str:
        """A run name that is the same for the same jobs at the same output, and another for others."""
        salt = hashlib.sha256(f"{self.digest}\n{output_url}".encode()).hexdigest()[:6]
        return f"{clean_name(stem)}-{salt}"


def clean_name(stem: str) -> str:
    """A run name from a file's: letters, digits, `.`, `_` and `-`."""
    name = "".join(char if char.isascii() and (char.isalnum() or char in "._-") else "-" for char in stem)
    return name.strip(".-")[:80].rstrip(".-") or "run"


def check_run_name(name: str) -> str:
    """Raises PlanError for a name that would not stand in an object's name or a folder's."""
    if name != clean_name(name):
        raise PlanError(f"run name {name!r}: use letters, digits, '.', '_' and '-', e.g. {clean_name(name)!r}")
    return name


def read_plan(paths: Iterable[str | Path], defaults: Mapping[str, Any], preset: str | None = None) -> Plan:
    """The plan that prompt files mean. `defaults` are job fields for rows that do not say otherwise.

    `preset` names what a kind of checkpoint needs (producer.presets): it stands under both, over the model's own.

    A row with no seed, where `defaults` has none either, gets its place in the run as seed: images differ, and the
    same files give the same plan again. A field that is `null` in a row counts as not given.

    Raises PromptFileErrors, with the first 20 wrong rows listed, JobError for a wrong default and ModelNameError.
    """
    names = [str(path) for path in paths]
    rows_to_jobs = _RowsToJobs(defaults, preset)
    jobs: list[Job] = []
    errors: list[PromptFileError] = []
    for path in names:
        for row in read_prompt_file(path):
            result = row if isinstance(row, PromptFileError) else rows_to_jobs(path, row, place=len(jobs))
            if isinstance(result, PromptFileError):
                errors.append(result)
            else:
                jobs.append(result)
    if errors:
        raise PromptFileErrors(errors[:MAX_LISTED_ERRORS], len(errors))
    if not jobs:
        raise PromptFileError(", ".join(names), 0, None, "has no prompts")
    return Plan(jobs)


class _RowsToJobs:
    """Rows to jobs, one after the other: the flags' defaults under the row's own fields, the model's under both."""

    def __init__(self, defaults: Mapping[str, Any], preset: str | None) -> None:
        self._preset = preset
        self._defaults = {name: value for name, value in canonical_names(defaults).items() if value is not None}
        self._models: dict[str, dict[str, Any]] = {}
        Job.from_fields({"prompt": "any", **self._complete({})})  # a wrong flag is said once, not for each row

    def __call__(self, path: str, row: Row, place: int) -> Job | PromptFileError:
        try:
            own = {name: value for name, value in canonical_names(row.fields).items() if value is not None}
            return Job.from_fields({"seed": place, **self._complete(own)})
        except JobError as error:
            field = error.field  # under its own name; the user may have written another one
            if field not in row.fields:
                field = next((name for name in row.fields if ALIASES.get(name) == field), field)
            return PromptFileError(path, row.line, field, error.problem)
        except ModelNameError as error:
            return PromptFileError(path, row.line, "model", str(error))

    def _complete(self, own: Mapping[str, Any]) -> dict[str, Any]:
        said = {**self._defaults, **own}
        if isinstance(said.get("refiner"), str):
            said["refiner"] = resolve_model(said["refiner"])
        return over(self._of_model(said.pop("model", DEFAULT_MODEL)), said)

    def _of_model(self, name: Any) -> dict[str, Any]:
        if not isinstance(name, str):
            raise JobError("model", f"must be text, got {name!r}")
        if name not in self._models:
            model = resolve_model(name)
            self._models[name] = {**model_defaults(model, self._preset).job_fields(), "model": model}
        return self._models[name]


def write_plan(output: Output, run: str, plan: Plan, sources: Sequence[str] = ()) -> dict[str, Any]:
    """Writes the run's plan and then its `run.json` to `output` (the run's own place), and returns the latter.

    Does nothing where they are already. Raises PlanError where another plan lies there, OutputError from the output.
    """
    known = read_run(output)
    if known is None:
        for number, start in enumerate(range(0, len(plan.jobs), JOBS_PER_FILE)):
            _put_plan_file(output, f"plan/{number:05d}.jsonl.zst", _plan_lines(plan, start))
        text = json.dumps(describe_run(output, run, plan, sources), indent=2, ensure_ascii=False) + "\n"
        # Another submitter of the same plan may have been first: its run.json differs in the time only.
        output.put_once(RUN_JSON, text.encode(), content_type="application/json", ours=lambda existing: True)
        known = read_run(output)
    if known is None or known.get("digest") != plan.digest:
        raise PlanError(
            f"run {run!r} at {output.url} has another plan: name this run otherwise (--run), or choose another output"
        )
    return known


def read_run(output: Output) -> dict[str, Any] | None:
    """The run's `run.json`, or None where there is none. Raises PlanError for one that is not ours."""
    try:
        data = output.get(RUN_JSON)
    except ObjectNotFound:
        return None
    try:
        run = json.loads(data)
    except ValueError:
        run = None
    if not isinstance(run, dict):
        raise PlanError(f"{output.url}/{RUN_JSON} is not one of promptmill's")
    return run


def describe_run(output: Output, run: str, plan: Plan, sources: Sequence[str]) -> dict[str, Any]:
    """What `run.json` holds: the run's resolved settings, counts and versions."""
    return {
        "format": "promptmill-run-1",
        "run": run,
        "output": output.url,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "jobs": len(plan.jobs),
        "images": len(plan.first_index),
        "plan_files": -(-len(plan.jobs) // JOBS_PER_FILE),
        "digest": plan.digest,
        "sources": [
            os.fsencode(source).decode(errors="replace") for source in sources
        ],  # a file's name may be any bytes
        "settings": common_fields(plan.jobs),
        "shapes": {shape.key: count for shape, count in plan.shapes.items()},
        "versions": {"promptmill": version("promptmill")},
    }


def common_fields(jobs: Sequence[Job]) -> dict[str, Any]:
    """The fields that all jobs share, the prompt and seed aside: stored once a run, not once a job."""
    common = jobs[0].fields()
    for job in jobs:
        fields = job.fields()
        for name in [name for name, value in common.items() if fields.get(name) != value]:
            del common[name]
    for name in ("prompt", "seed"):
        common.pop(name, None)
    return common


def _plan_lines(plan: Plan, start: int) -> Iterator[str]:
    for index in range(start, min(start + JOBS_PER_FILE, len(plan.jobs))):
        yield canonical_json({"index": index, "id": plan.ids[index], "job": plan.jobs[index].fields()})


def _put_plan_file(output: Output, name: str, lines: Iterable[str]) -> None:
    text = "".join(f"{line}\n" for line in lines).encode()
    data = zstandard.ZstdCompressor(level=9).compress(text)

    def same_text(
        existing: Existing,
    ) -> bool:  # another version of zstd packs the same lines into other bytes
        try:
            return zstandard.ZstdDecompressor().decompress(existing.read()) == text
        except zstandard.ZstdError:
            return False

    output.put_once(name, data, content_type="application/zstd", ours=same_text)
