"""A line of the plan, written and read back without taking its JSON apart: most jobs differ in prompt and seed alone.

    {"id":"...","index":N,"job":{...,"prompt":"...",...,"seed":N,...},"template":{...},"choices":{...},
     "row":"FILE:LINE","labels":{...}}

Keys are sorted, so what stands around the prompt and the seed is the same text for all jobs that share the rest. It is
made, and looked at, once for all of them. `row` is where a person finds the job again; `labels` is there where a row
has any, and `template` and `choices`, by field, where a text was drawn: {"prompt":"a {red|blue} ball"} and
{"prompt":["red"]}.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from json.encoder import encode_basestring as quoted
from pathlib import Path
from typing import Any, NamedTuple

from promptmill.producer.errors import PlanError
from promptmill.producer.job import JOB_FORMAT, Job, JobId, canonical_json
from promptmill.producer.prompts.templates import Drawn

MOST_KINDS = 4096
"""Kinds of job that are kept ready; where each row has fields of its own, they are forgotten and made anew."""

_HASHED = f"{JOB_FORMAT}\n"

# Within JSON a quote in a text is escaped, so `"prompt":` and `"seed":` are those keys wherever they stand.
_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_LINE = re.compile(
    r'\{"id":"([0-9a-f]{32})","index":([0-9]+),"job":'
    rf'(\{{.*?"prompt":)({_STRING})(.*?"seed":)([0-9]+)([^{{}}]*\}})'
    rf'(?:,"template":(\{{(?:{_STRING}:{_STRING},?)++\}}),"choices":(\{{(?:{_STRING}:\[(?:{_STRING},?)*+\],?)++\}}))?'
    rf'(?:,"row":({_STRING}))?(?:,"labels":(\{{.*\}}))?\}}'
)


class PlannedJob(NamedTuple):
    """A job of the run, as the queue wants it. `own_json` is canonical JSON of the fields that the run does not share.

    `first` is false for a row that means the same job as one before it. `template` and `choices` say how its texts were
    drawn, by field; `row` is the row that means it, `FILE:LINE`, where the plan says so.
    """

    index: int  # type: ignore[assignment]  # a tuple has a method of this name, which nobody calls here
    id: JobId
    shape_key: str
    own_json: str
    first: bool
    labels: Mapping[str, Any] | None
    template: Mapping[str, str] | None = None
    choices: Mapping[str, Sequence[str]] | None = None
    row: str | None = None

    @property
    def prompt(self) -> str:
        return str(json.loads(self.own_json)["prompt"])


class Kind:
    """The jobs that differ in prompt and seed alone: checked once, with their JSON ready but for the two."""

    __slots__ = ("after", "before", "between", "fields", "model", "shape", "shape_number", "windows")

    def __init__(self, job: Job, shape_number: int) -> None:
        self.fields = {name: value for name, value in job.fields().items() if name not in ("prompt", "seed")}
        self.before, self.between, self.after = around(self.fields)
        self.shape = job.shape
        self.shape_number = shape_number
        self.windows = job.prompt_windows or 1
        self.model = job.model

    def json(self, prompt: str, seed: int) -> str:
        """Canonical JSON of the job with this prompt and seed, as `Job.to_json`."""
        return f"{self.before}{quoted(prompt)}{self.between}{seed}{self.after}"


def around(fields: Mapping[str, Any]) -> tuple[str, str, str]:
    """Canonical JSON of a job's fields, prompt and seed aside, cut where the two belong."""
    before = {name: value for name, value in fields.items() if name < "prompt"}
    between = {name: value for name, value in fields.items() if "prompt" < name < "seed"}
    after = {name: value for name, value in fields.items() if name > "seed"}
    return (
        f'{_inner(before, "{", ",")}"prompt":' if before else '{"prompt":',
        f'{_inner(between, ",", ",")}"seed":' if between else ',"seed":',
        _inner(after, ",", "}") if after else "}",
    )


def _inner(fields: Mapping[str, Any], start: str, end: str) -> str:
    return f"{start}{canonical_json(fields)[1:-1]}{end}"


def job_digest(job_json: str) -> bytes:
    """The hash whose first 16 bytes are the job's id."""
    return sha256((_HASHED + job_json).encode()).digest()


def plan_line(job_id: str, index: int, job_json: str, labels_json: str | None, drawn: str = "", row: str = "") -> str:
    """A line of the plan, without its end; `drawn` and `row` are what `drawn_json` and `row_json` say."""
    labels = f',"labels":{labels_json}' if labels_json else ""
    return f'{{"id":"{job_id}","index":{index},"job":{job_json}{drawn}{row}{labels}}}'


def seed_apart(line: str) -> tuple[int, str, str]:
    """A line's seed, its prompt (as JSON), and its job with the seed 0. Raises PlanError."""
    _, _, before, prompt, between, seed, after, *_ = _parts(line)
    return int(seed), prompt, f"{before}{prompt}{between}0{after}"


def with_seed(line: str, seed: int) -> str:
    """The line of the same job with another seed, and so with another id. Raises PlanError."""
    _, index, before, prompt, between, old, after, *_ = _parts(line)
    head, job = f',"index":{index},"job":', f"{before}{prompt}{between}{old}{after}"
    rest = line[line.index(head) + len(head) + len(job) :]
    job = f"{before}{prompt}{between}{seed}{after}"
    return f'{{"id":"{job_digest(job)[:16].hex()}"{head}{job}{rest}'


def _parts(line: str) -> tuple[str, ...]:
    match = _LINE.fullmatch(line)
    if match is None:
        raise PlanError(f"the plan is damaged: it has a line that is not one of promptmill's: {line[:80]!r}")
    return match.groups()


def row_json(file: str, line: int) -> str:
    """Where a row stands, as a line of the plan says it: without the folders of this machine."""
    return f'{_file_json(file)}:{line}"'


@lru_cache(64)
def _file_json(file: str) -> str:
    name = file if "://" in file else Path(file).name
    return f',"row":{quoted(os.fsencode(name).decode(errors="replace"))[:-1]}'


_ROW = re.compile(rf',"row":{_STRING}')


def without_rows(text: str) -> str:
    """Lines of a plan without what says where its rows stand: the same jobs may come of another file."""
    return _ROW.sub("", text)


def drawn_json(texts: Mapping[str, Drawn]) -> str:
    """Templates and choices as they stand in a line of the plan; '' where nothing was chosen."""
    chosen = {name: text for name, text in texts.items() if text.choices}
    if not chosen:
        return ""
    templates = canonical_json({name: text.template for name, text in chosen.items()})
    return f',"template":{templates},"choices":{canonical_json({name: text.choices for name, text in chosen.items()})}'


class PlanReader:
    """Lines of the plan -> planned jobs. `common` is what the run's jobs share, prompt and seed aside."""

    def __init__(self, common: Mapping[str, Any]) -> None:
        self._common = common
        self._kinds: dict[tuple[str, str, str], tuple[str, str, str, str]] = {}

    def job(self, line: str, repeated: bool) -> PlannedJob:
        """Raises PlanError for a line that is no plan's."""
        job_id, index, before, prompt, between, seed, after, template, choices, row, labels = _parts(line)
        kind = self._kinds.get((before, between, after)) or self._kind(before, between, after)
        own = f"{kind[1]}{prompt}{kind[2]}{seed}{kind[3]}"
        told = (json.loads(part) if part else None for part in (labels, template, choices, row))
        return PlannedJob(int(index), JobId(job_id), kind[0], own, not repeated, *told)

    def _kind(self, before: str, between: str, after: str) -> tuple[str, str, str, str]:
        fields = json.loads(f'{before}"any"{between}0{after}')
        common = self._common
        own = {name: value for name, value in fields.items() if name not in common or common[name] != value}
        own.update(dict.fromkeys(common.keys() - fields.keys()))  # rows that came later may not share all of it
        if len(self._kinds) >= MOST_KINDS:
            self._kinds.clear()
        made = (Job(**fields).shape.key, *around(own))
        self._kinds[before, between, after] = made
        return made
