"""The manifest: one row per index of a run, with what was asked for and what came of it.

    index, id           the job's index in the run, and its id
    state               done; failed; broken (a file that is not the job's image); missing
    reason              of what is failed or broken
    path, bytes, crc32c, sha256, image_width, image_height, marks
                        of the image, where it is whole; `path` is relative to the run's output; `marks` are what says
                        that a model made it: xmp, watermark, c2pa
    one column per field of a job, named as in prompt files; null where it was left open
    template, choices   JSON by field: the text before alternatives were chosen, and what was chosen
    labels, notes       JSON: what the user's row held beside the job; what a worker cut, checked, hid or marked
    flagged, checks     whether a check flagged the image, and JSON of what each check found; null where none looked
    score_NAME          numbers of the user's own, where the run was packed with --scores; a column each
    worker, render_s    who rendered the image, and in how many seconds from its batch's start to its file; null where
                        the output does not keep it

Rows that mean the same job share one image, and each has its own row. Memory is that of one plan file.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from promptmill.dataset.images import ImageError, ImageFacts, look_at
from promptmill.dataset.parallel import READERS
from promptmill.dataset.scores import Scores, finite
from promptmill.producer.errors import PlanError
from promptmill.producer.image_formats import Encoding
from promptmill.producer.job import Job, canonical_json
from promptmill.producer.layout import RENDER_S_KEY, RUN_JSON, WORKER_KEY
from promptmill.producer.outputs.output import ObjectNotFound, Output
from promptmill.producer.plan import Plan
from promptmill.producer.plan_builder import unpack
from promptmill.producer.plan_files import page_names, read_run
from promptmill.producer.plan_lines import PlannedJob, PlanReader
from promptmill.producer.spool import Heaps

MANIFEST = "manifest.parquet"
Row = dict[str, Any]
Groups = Iterable[list[Row]]

_SCALARS: dict[Any, pa.DataType] = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


def _arrow(hint: Any) -> pa.DataType:
    """The column of a job's field by its annotation: `tuple[int, int] | None` is a list of whole numbers."""
    if get_origin(hint) is UnionType:
        hint = next(choice for choice in get_args(hint) if choice is not NoneType)
    return pa.list_(_SCALARS[get_args(hint)[0]]) if get_origin(hint) is tuple else _SCALARS[hint]


JOB_COLUMNS = {name: _arrow(hint) for name, hint in get_type_hints(Job).items()} | {"seed": pa.uint64()}

SCHEMA = pa.schema(
    {
        "index": pa.int64(),
        "id": pa.string(),
        "state": pa.string(),
        "reason": pa.string(),
        "path": pa.string(),
        "bytes": pa.int64(),
        "crc32c": pa.string(),
        "sha256": pa.string(),
        "image_width": pa.int32(),
        "image_height": pa.int32(),
        "marks": pa.list_(pa.string()),
        **JOB_COLUMNS,
        "template": pa.string(),
        "choices": pa.string(),
        "labels": pa.string(),
        "notes": pa.string(),
        "flagged": pa.bool_(),
        "checks": pa.string(),
        "worker": pa.string(),
        "render_s": pa.float64(),
    }
)


SCORE = "score_"
"""Before the names of columns that are scores."""

NO_SCORES: Scores = MappingProxyType({})


def write_manifest(
    file: Path,
    output: Output,
    plan: Plan,
    failures: Mapping[int, str],
    scores: Scores = NO_SCORES,
    looked: Groups | None = None,
) -> dict[str, int]:
    """Write the run's manifest as Parquet, one row group per plan file; return how many rows have each state.

    `output` is the run's own. `failures` are the reasons that the ledger knows, by index. `looked`: rows by others, who
    know of no failures.
    """
    if looked is None:
        return write_rows(file, manifest_rows(output, plan, failures), scores)
    return write_rows(file, (with_failures(rows, failures) for rows in looked), scores)


def with_failures(rows: list[Row], failures: Mapping[int, str]) -> list[Row]:
    """The rows, those without an image failed where a reason is known."""
    for row in rows:
        if row["state"] == "missing" and row["index"] in failures:
            row.update(state="failed", reason=failures[row["index"]])
    return rows


def write_rows(file: Path, groups: Iterable[Sequence[Row]], scores: Scores) -> dict[str, int]:
    """Write rows as a manifest, with their scores as columns; return how many have each state."""
    schema = pa.schema([*SCHEMA, *(pa.field(f"{SCORE}{name}", pa.float64()) for name in scores)])
    counts: dict[str, int] = {}
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for rows in groups:
            for row in rows:
                row.update({f"{SCORE}{name}": finite(column[row["index"]]) for name, column in scores.items()})
                counts[row["state"]] = counts.get(row["state"], 0) + 1
            writer.write_table(pa.Table.from_pylist(rows, schema=schema), row_group_size=len(rows))
    return counts


def manifest_rows(output: Output, plan: Plan, failures: Mapping[int, str]) -> Iterator[list[Row]]:
    """The rows of each plan file, in order. Raises OutputError, PlanError."""
    with ThreadPoolExecutor(READERS, "manifest") as readers:
        jobs = iter(plan)
        while page := list(islice(jobs, plan.page_jobs)):
            yield list(readers.map(lambda job: _row(output, plan, job, failures), page))


def page_rows(output: Output, number: int) -> list[Row]:
    """The rows of one plan file of a run, without the others; it knows no failures. Raises OutputError, PlanError."""
    run = read_run(output)
    if run is None:
        raise PlanError(f"{output.url} has no {RUN_JSON}: no run was submitted there, or not all of it")
    common, reader = run["settings"], PlanReader(run["settings"])
    jobs = [reader.job(line, False) for line in unpack(output.get(page_names(run)[number]))]
    made = {"digest": run["digest"], "shape_keys": (), "page_jobs": len(jobs), "asked": Encoding.of_run(run)}
    with (
        Plan((), Heaps(), common=common, **made) as plan,
        ThreadPoolExecutor(READERS, "manifest") as readers,
    ):
        return list(readers.map(lambda job: _row(output, plan, job, {}), jobs))


def planned_row(planned: PlannedJob, job: Job) -> Row:
    """What the plan alone says of a row."""
    row: Row = {"index": planned.index, "id": planned.id, **dict.fromkeys(JOB_COLUMNS), **job.fields()}
    for name in ("template", "choices", "labels"):
        told = getattr(planned, name)
        row[name] = canonical_json(told) if told else None
    return row


def _row(output: Output, plan: Plan, planned: PlannedJob, failures: Mapping[int, str]) -> Row:
    job = plan.whole(planned)
    path = plan.image_name(planned.id)
    row = planned_row(planned, job)
    try:
        facts = whole_image(output.get(path), job)
    except ObjectNotFound:
        reason = failures.get(planned.index)
        return {**row, "state": "missing" if reason is None else "failed", "reason": reason}
    except ImageError as error:
        return {**row, "state": "broken", "reason": f"{path} {error}"}
    return {
        **row,
        **_checked(facts.notes),
        **_rendered(output, path),
        "state": "done",
        "path": path,
        "bytes": facts.bytes,
        "crc32c": facts.crc32c,
        "sha256": facts.sha256,
        "image_width": facts.width,
        "image_height": facts.height,
        "marks": list(facts.marks),
        "notes": canonical_json(facts.notes) if facts.notes else None,
    }


def _checked(notes: Mapping[str, Any]) -> Row:
    told = notes.get("safety")
    return {} if told is None else {"flagged": bool(told["flagged"]), "checks": canonical_json(told["checks"])}


def _rendered(output: Output, path: str) -> Row:
    kept = output.metadata(path)
    seconds = kept.get(RENDER_S_KEY)
    return {"worker": kept.get(WORKER_KEY) or None, "render_s": None if seconds is None else float(seconds)}


def whole_image(data: bytes, job: Job, *, decode: bool = False) -> ImageFacts:
    """The facts of the job's image. Raises ImageError where the bytes are damaged, or another job's."""
    facts = look_at(data, decode=decode)
    if facts.job_id != job.id:
        raise ImageError(f"is the image of another job: {facts.job_id}" if facts.job_id else "has no job inside")
    if (facts.width, facts.height) != (job.width, job.height):
        raise ImageError(f"is {facts.width}x{facts.height}, expected {job.width}x{job.height}")
    return facts
