"""A run of an OpenAI Batch file, answered in its form: `output.jsonl` and `error.jsonl`.

{"id": ..., "custom_id": "a-1", "response": {"status_code": 200, "request_id": ...,
 "body": {"created": ..., "data": [...]}}, "error": null}

A request is answered once all of its `n` images are there; else `error.jsonl` says which is not, and why.
"""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from promptmill.export import write_whole
from promptmill.producer.errors import PlanError
from promptmill.producer.layout import Look, look_inside
from promptmill.producer.outputs.output import ObjectNotFound, Output
from promptmill.producer.plan import Plan
from promptmill.producer.plan_files import read_run
from promptmill.producer.plan_lines import PlannedJob
from promptmill.producer.prompts.openai_batch import CUSTOM_ID
from promptmill.producer.words import count

OUTPUT, ERRORS = "output.jsonl", "error.jsonl"


@dataclass(frozen=True)
class Answered:
    """Requests with all of their images, and the others."""

    answered: int
    failed: int


def answer_batch(
    output: Output, plan: Plan, folder: Path, failures: Mapping[int, str], *, urls: bool = False
) -> Answered:
    """Writes both files anew. Images are in them as base64, or by their place in the output.

    Raises PlanError where no job has a custom_id: the run is of no Batch file.
    """
    answers = _Answers(output, plan, failures, urls)
    errors = folder / f".{ERRORS}.part"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with errors.open("wb") as answers.errors:
            write_whole(folder / OUTPUT, answers.lines())
        if not answers.answered + answers.failed:
            (folder / OUTPUT).unlink()
            raise PlanError(
                f"{output.url}: no job has a {CUSTOM_ID}: the run was not submitted from an OpenAI Batch file"
            )
        errors.replace(folder / ERRORS)
    finally:
        errors.unlink(missing_ok=True)
    return Answered(answers.answered, answers.failed)


class _Answers:
    def __init__(self, output: Output, plan: Plan, failures: Mapping[int, str], urls: bool) -> None:
        self.answered = self.failed = 0
        self.errors: Any = None
        self._output = output
        self._plan = plan
        self._failures = failures
        self._urls = urls
        run = read_run(output) or {}
        self._run = str(run.get("run", "run"))
        self._created = int(datetime.fromisoformat(run["created"]).timestamp()) if "created" in run else 0

    def lines(self) -> Iterator[bytes]:
        """The lines of `output.jsonl`; those of `error.jsonl` go there on the way. A request's jobs are neighbours."""
        for custom_id, jobs in groupby(self._plan, key=lambda job: (job.labels or {}).get(CUSTOM_ID)):
            if custom_id is None:
                continue
            request = list(jobs)
            data = [self._image(job) for job in request]
            said = {"id": f"batch_req_{request[0].id}", CUSTOM_ID: custom_id}
            if None in data:
                self.failed += 1
                error = {"code": "image_generation_failed", "message": self._why(request, data)}
                self.errors.write(_line({**said, "response": None, "error": error}))
                continue
            self.answered += 1
            body = {"created": self._created, "data": data}
            response = {"status_code": 200, "request_id": f"{self._run}-{request[0].index}", "body": body}
            yield _line({**said, "response": response, "error": None})

    def _image(self, job: PlannedJob) -> dict[str, str] | None:
        name, extension = self._plan.image_name(job.id), self._plan.encoding.extension
        try:
            data = self._output.get(name)
        except ObjectNotFound:
            return None
        if look_inside(job.id, len(data), lambda start, length: data[start:][:length], extension) is not Look.OURS:
            return None
        return {"url": f"{self._output.url}/{name}"} if self._urls else {"b64_json": base64.b64encode(data).decode()}

    def _why(self, request: Sequence[PlannedJob], data: Sequence[Any]) -> str:
        missing = [job.index for job, image in zip(request, data, strict=True) if image is None]
        reasons = [f"index {index}: {self._failures.get(index, 'not rendered yet')}" for index in missing]
        return f"{len(missing)} of {count(len(data), 'image')} missing: {'; '.join(reasons)}"


def _line(said: Mapping[str, Any]) -> bytes:
    return (json.dumps(said, ensure_ascii=False) + "\n").encode()
