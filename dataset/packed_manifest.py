"""The manifest of a run that is packed: the one that is there, a new one, or one in the place of an earlier one.

A run may be packed before all of its images are there, and again when they have come, or when failed jobs were retried,
or with scores. The later manifest replaces the earlier one where every image of which that tells is still the same;
everything that was made of it is then replaced too. An image that has become another one is a conflict, for `repair`.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from promptmill.dataset.manifest import MANIFEST, Groups, write_manifest, write_rows
from promptmill.dataset.pack import RECORD
from promptmill.dataset.rows import Rows
from promptmill.dataset.scores import SCORES, Scores, stored_scores, write_scores
from promptmill.dataset.seal import PIECE_BYTES
from promptmill.dataset.stored_manifest import ManifestError, open_manifest
from promptmill.producer.errors import PromptmillError
from promptmill.producer.job import JobId, canonical_json
from promptmill.producer.outputs.output import Existing, ObjectNotFound, Output
from promptmill.producer.plan import Plan
from promptmill.producer.words import count

_COMPARED = ("index", "id", "state", "sha256")


class UnfinishedError(PromptmillError):
    """A run with images that are still to come."""


@dataclass(frozen=True)
class Placed:
    """The manifest that is in the output now: how many rows have each state; `renew`: there was an earlier one, of
    which something may be left."""

    counts: dict[str, int]
    renew: bool


def place_manifest(
    file: Path,
    output: Output,
    plan: Plan,
    failures: Mapping[int, str],
    *,
    partial: bool,
    scores: Scores | None,
    look: Callable[[], Groups | None] = lambda: None,
    before_renewing: Callable[[], object] = lambda: None,
) -> Placed:
    """Put the run's manifest into a file and into the output. What is there and complete stays.

    `scores` None: those that the run was packed with. `look` may have others look
    at the images. `before_renewing` is called before anything is replaced. Raises
    UnfinishedError, OutputConflict, ScoresError, OutputError, PlanError.
    """
    known = stored_scores(output, plan.jobs)
    there = _placed_before(file, output, plan)
    if there is not None and (scores is None or _same(scores, known)):
        return there
    chosen = known if scores is None else scores
    counts = _with_scores(file, chosen) if there else write_manifest(file, output, plan, failures, chosen, look())
    missing = counts.get("missing", 0)
    if missing and not partial:
        raise UnfinishedError(f"{output.url}: {missing} of {count(plan.jobs, 'job')} have neither image nor failure")
    renew = _goes_on(output, file)
    if renew:
        before_renewing()
    if chosen:
        of_scores = file.with_name(SCORES)
        write_scores(of_scores, chosen)
        output.put_file(SCORES, of_scores, content_type=_PARQUET, broken=lambda existing: True)
    _put_manifest(output, file, renew)
    copy_object(output, MANIFEST, file)  # as it lies there: another version of pyarrow may have written it
    record = {"sha256": file_sha256(file), "counts": counts, **({"renewed": True} if renew else {})}
    output.put_once(RECORD, f"{canonical_json(record)}\n".encode(), broken=lambda existing: True)
    return Placed(counts, renew)


_PARQUET = "application/vnd.apache.parquet"


def _placed_before(file: Path, output: Output, plan: Plan) -> Placed | None:
    """The manifest that is there, copied to the file, where nothing in it is still to come."""
    try:
        record: dict[str, Any] = json.loads(output.get(RECORD))
        digest, counts = record["sha256"], {str(state): int(count) for state, count in record["counts"].items()}
        if not {"done", "failed"} >= counts.keys():
            return None
        copy_object(output, MANIFEST, file)
    except (ObjectNotFound, ValueError, KeyError, TypeError, AttributeError):
        return None
    if file_sha256(file) != digest or _has_come(output, plan, file):
        return None
    return Placed(counts, bool(record.get("renewed")))


def _has_come(output: Output, plan: Plan, file: Path) -> bool:
    """Whether a job that failed, by the manifest, has an image by now."""
    with Rows(file) as rows:
        failed = (row["id"] for row in rows.between(0, len(rows), ["id", "state"]) if row["state"] == "failed")
        return any(output.exists(plan.image_name(JobId(job_id))) for job_id in failed)


def _same(scores: Scores, known: Scores) -> bool:
    """NaN is as NaN here."""
    return scores.keys() == known.keys() and all(
        one == other or (one != one and other != other)
        for name in scores
        for one, other in zip(scores[name], known[name], strict=True)
    )


def _with_scores(file: Path, scores: Scores) -> dict[str, int]:
    """Write a manifest anew with other scores."""
    old = file.rename(file.with_name("without-scores.parquet"))
    with Rows(old) as rows:
        return write_rows(file, map(rows.group, range(rows.groups)), scores)


def _goes_on(output: Output, file: Path) -> bool:
    """Whether there is a manifest of the same jobs, and each image in it is the one that the new file tells of."""
    try:
        there = open_manifest(output)
    except ManifestError:
        return False
    if there is None:
        return False
    with there, Rows(file) as rows:
        try:
            pairs = zip(there.rows(_COMPARED), rows.between(0, len(rows), _COMPARED), strict=True)
            return all(old["id"] == new["id"] and old["sha256"] in (None, new["sha256"]) for old, new in pairs)
        except (ManifestError, ValueError):
            return False


def _put_manifest(output: Output, file: Path, renew: bool) -> None:
    def same_rows(existing: Existing) -> bool:  # another version of pyarrow writes the same rows as other bytes
        try:
            there: bool = pq.read_table(pa.BufferReader(existing.read())).equals(pq.read_table(file))
        except pa.ArrowException:
            return False
        return there

    output.put_file(MANIFEST, file, content_type=_PARQUET, ours=same_rows, broken=lambda existing: renew)


def copy_object(output: Output, name: str, file: Path) -> None:
    """Copy an object into a file. Raises ObjectNotFound."""
    with file.open("wb") as copy:
        while piece := output.read(name, copy.tell(), PIECE_BYTES):
            copy.write(piece)


def file_sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
