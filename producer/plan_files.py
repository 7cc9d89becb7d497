"""The plan in the output: `plan/00000.jsonl.zst`, ..., and `run.json` after the last of them.

A file has JOBS_PER_FILE lines as plan_lines.py writes them. A run with a `run.json` has its whole plan. All are
written once: the same command run again finds its own plan there. `rejects.jsonl` lists the rows that were skipped.
"""

import datetime
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

import zstandard

from promptmill.producer.errors import PlanError
from promptmill.producer.image_formats import Encoding, ImageFormatError
from promptmill.producer.layout import REJECTS, RUN_JSON, page_name
from promptmill.producer.outputs.output import Existing, ObjectNotFound, Output
from promptmill.producer.plan import Plan
from promptmill.producer.plan_builder import JOBS_PER_FILE, SHAPE_BITS, unpack
from promptmill.producer.plan_lines import PlanReader, without_rows
from promptmill.producer.spool import Heaps
from promptmill.producer.words import count

MAX_FILES = 100_000
"""Of a plan: a thousand million jobs. A `run.json` that tells of more is not believed."""

WRITERS = 8  # files of the plan on their way at once: a bucket takes a tenth of a second for each


def write_plan(output: Output, run: str, plan: Plan, sources: Sequence[str] = ()) -> dict[str, Any]:
    """Writes the run's plan and then its `run.json` to `output` (the run's own place), and returns the latter.

    Does nothing where they are already. Raises PlanError where another plan lies there, OutputError from the output.
    """
    known = read_run(output)
    if known is None:
        with ThreadPoolExecutor(WRITERS, "plan") as writers:
            numbers = range(len(plan.pages))
            for _ in writers.map(lambda number: _put_page(output, page_name(number), plan.pages[number]), numbers):
                pass
        if plan.rejected:
            output.put_once(REJECTS, b"".join(plan.rejects.lines()), content_type="application/jsonl", ours=_any)
        text = json.dumps(describe_run(output, run, plan, sources), indent=2, ensure_ascii=False) + "\n"
        # Another submitter of the same plan may have been first: its run.json differs in the time only.
        output.put_once(RUN_JSON, text.encode(), content_type="application/json", ours=_any)
        known = read_run(output)
    if known is None or known.get("digest") != plan.digest:
        raise PlanError(
            f"run {run!r} at {output.url} already holds a different plan; "
            "pass another name with --run, or another --output"
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
    except (ValueError, RecursionError):
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
        "jobs": plan.jobs,
        "images": plan.images,
        "rejected": plan.rejected,
        "plan_files": len(plan.pages),
        "jobs_per_plan_file": plan.page_jobs,
        "digest": plan.digest,
        "sources": clean_sources(sources),
        "seeds_end": plan.seeds_end,
        "settings": plan.common,
        **plan.encoding.to_json(),
        "shapes": {shape.key: count for shape, count in plan.shapes.items()},
        "versions": {"promptmill": version("promptmill")},
    }


def clean_sources(sources: Sequence[str]) -> list[str]:
    """Names of files as JSON can hold them: a file's name may be any bytes."""
    return [os.fsencode(source).decode(errors="replace") for source in sources]


def load_plan(run_output: Output) -> Plan:
    """The plan that lies in a run's output. Raises PlanError where there is none, or not the whole of it."""
    run = read_run(run_output)
    if run is None:
        raise PlanError(f"{run_output.url} has no {RUN_JSON}: no run was submitted there, or not all of it")
    heaps = Heaps()
    try:
        pages = _Stored(run_output, page_names(run))
        page_jobs = int(run.get("jobs_per_plan_file", JOBS_PER_FILE))
        digest, shapes = _index(pages, run["settings"], heaps, page_jobs)
        if digest != run["digest"] or len(heaps) != run["jobs"]:
            raise PlanError(f"{run_output.url}: the plan's files are not those that its {RUN_JSON} lists")
        return Plan(
            pages,
            heaps,
            digest=digest,
            shape_keys=shapes,
            common=run["settings"],
            page_jobs=page_jobs,
            asked=Encoding.of_run(run),
        )
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, ImageFormatError) as error:
        heaps.close()
        raise PlanError(f"{run_output.url}/{RUN_JSON} does not describe a run: {str(error)[:200]}") from error
    except BaseException:
        heaps.close()
        raise


class _Stored:
    """The plan's files, fetched one at a time."""

    def __init__(self, output: Output, names: Sequence[str]) -> None:
        self._output = output
        self._names = names

    def __getitem__(self, number: int) -> bytes:
        try:
            return self._output.get(self._names[number])
        except ObjectNotFound as error:
            raise PlanError(f"{self._output.url}/{self._names[number]} is missing: the plan is incomplete") from error

    def __len__(self) -> int:
        return len(self._names)


def _index(pages: _Stored, common: dict[str, Any], heaps: Heaps, page_jobs: int) -> tuple[str, list[str]]:
    """Fills the heaps with the jobs' ids; returns the plan's digest and the shapes' keys."""
    reader, digest, shapes = PlanReader(common), hashlib.sha256(), dict[str, int]()
    for number in range(len(pages)):
        lines = unpack(pages[number])
        if len(lines) != page_jobs and (number + 1 < len(pages) or len(lines) > page_jobs):
            has = f"file {number} of it has {count(len(lines), 'job')}, expected {page_jobs}"
            raise PlanError(f"the plan is damaged: {has}")
        for line in lines:
            job = reader.job(line, False)
            shape = shapes.setdefault(job.shape_key, len(shapes))
            heaps.add(bytes.fromhex(job.id), len(heaps) << SHAPE_BITS | shape)
            digest.update(job.id.encode())
    return digest.hexdigest(), list(shapes)


def page_names(run: Mapping[str, Any]) -> list[str]:
    """The files of the plan of a `run.json`, in order."""
    names: list[str] | None = run.get("plan_names")
    if not 0 <= (files := int(run["plan_files"])) <= MAX_FILES:
        raise ValueError(f"plan_files is {files}, expected 0 to {MAX_FILES}")
    return [page_name(number) for number in range(files)] if names is None else names


def put_changed_pages(output: Output, names: Sequence[str], plan: Plan, from_page: int) -> list[str]:
    """Writes the plan's files from a number on under names of their own; the names of all. `names` are those so far."""

    def put(number: int) -> str:
        text = zstandard.ZstdDecompressor().decompress(plan.pages[number])
        name = page_name(number, hashlib.sha256(text).hexdigest()[:12])
        _put_page(output, name, plan.pages[number])
        return name

    with ThreadPoolExecutor(WRITERS, "plan") as writers:
        return [*names[:from_page], *writers.map(put, range(from_page, len(plan.pages)))]


def _put_page(output: Output, name: str, data: bytes) -> None:
    def same_jobs(existing: Existing) -> bool:  # another version of zstd packs the same lines into other bytes
        try:
            return _jobs_text(existing.read()) == _jobs_text(data)
        except (zstandard.ZstdError, UnicodeDecodeError):
            return False

    output.put_once(name, data, content_type="application/zstd", ours=same_jobs)


def _jobs_text(page: bytes) -> str:
    return without_rows(zstandard.ZstdDecompressor().decompress(page).decode())


def _any(existing: Existing) -> bool:
    return True
