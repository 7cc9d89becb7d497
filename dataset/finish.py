"""The whole of what makes a dataset of a run: manifest, shards, and the seal over both."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from promptmill.dataset.card import CARD, card_text, licence_in
from promptmill.dataset.croissant import CROISSANT, croissant_text
from promptmill.dataset.failures import put_failures
from promptmill.dataset.manifest import MANIFEST, write_manifest
from promptmill.dataset.options import SHARD_SIZE, PackOptions
from promptmill.dataset.pack import RECORD, SHARDS_JSON, Shard, check_options, pack
from promptmill.dataset.rows import Rows
from promptmill.dataset.seal import PIECE_BYTES, write_seal
from promptmill.dataset.summary import summarize
from promptmill.dataset.transcoder import Transcoder
from promptmill.producer.errors import PromptmillError
from promptmill.producer.job import JobId, canonical_json
from promptmill.producer.layout import CONTACT_SHEET, FAILURES, REJECTS, RUN_JSON
from promptmill.producer.outputs.output import Existing, ObjectNotFound, Output
from promptmill.producer.plan import Plan
from promptmill.producer.plan_files import page_names, read_run
from promptmill.producer.scratch import scratch_folder
from promptmill.producer.words import count


class UnfinishedError(PromptmillError):
    """A run with images that are still to come."""


def finish(
    output: Output,
    plan: Plan,
    failures: Mapping[int, str],
    *,
    options: PackOptions | None = None,
    shard_size: int | None = None,
    partial: bool = False,
    licence: str = "unknown",
    draw: Callable[[], object] = lambda: None,
    help_pack: Callable[[Rows], object] = lambda rows: None,
    progress: Callable[[Shard], None] = lambda shard: None,
) -> dict[str, int]:
    """Write manifest, shards, card and seal of a run; return how many rows have each state. What is there stays.

    `shard_size` alone is short for options of that size; `licence` is the card's; `draw` may put a contact sheet there
    for it, and `help_pack` have others put shards there. Raises UnfinishedError where images are still to come, unless
    it may be `partial`; PackError for options that cannot be; OutputConflict where those of other images, or other
    shards, lie there; ImageChangedError, OutputError, PlanError.
    """
    as_rendered = PackOptions(shard_size=SHARD_SIZE if shard_size is None else shard_size)
    chosen = options or replace(as_rendered, image_format=plan.encoding.format)
    Transcoder(chosen)  # else refused after the manifest
    check_options(output, chosen)
    with scratch_folder("pack") as made:
        scratch = made.folder
        counts = _manifest(scratch / MANIFEST, output, plan, failures, partial)
        with Rows(scratch / MANIFEST) as rows:
            help_pack(rows)
            for shard in pack(output, rows, scratch, chosen):
                progress(shard)
            draw()
            put_descriptions(output, rows, scratch / MANIFEST, licence)
        put_failures(output, scratch)
    write_seal(output, sealed_names(output))
    return counts


def put_descriptions(output: Output, rows: Rows, manifest: Path, licence: str) -> None:
    """Put the card and the Croissant file beside the shards. A card that is there, which its user may edit, stays."""
    summary = summarize(rows, read_run(output) or {}, json.loads(output.get(SHARDS_JSON)))
    card = card_text(summary, licence, output.exists(CONTACT_SHEET)).encode()
    output.put_once(CARD, card, content_type="text/markdown", ours=lambda existing: True)
    said = licence_in(output.get(CARD).decode(errors="replace")) or licence
    croissant = croissant_text(summary, said, (manifest.stat().st_size, _sha256(manifest)))
    output.put_once(CROISSANT, croissant, content_type="application/ld+json", ours=lambda existing: True)


def sealed_names(output: Output) -> list[str]:
    """The objects of a packed run whose digests `_SUCCESS` holds. Raises PlanError."""
    pages, some = (
        page_names(read_run(output) or {}),
        (name for name in (REJECTS, FAILURES, CROISSANT) if output.exists(name)),
    )
    return [RUN_JSON, *pages, MANIFEST, RECORD, SHARDS_JSON, *some]


def _manifest(file: Path, output: Output, plan: Plan, failures: Mapping[int, str], partial: bool) -> dict[str, int]:
    """The run's manifest, in a file and in the output; how many rows have each state."""
    counts = _manifest_there(file, output, plan)
    if counts is not None:
        return counts
    counts = write_manifest(file, output, plan, failures)
    missing = counts.get("missing", 0)
    if missing and not partial:
        raise UnfinishedError(f"{output.url}: {missing} of {count(plan.jobs, 'job')} have neither image nor failure")
    _put_manifest(output, file)
    _copy(output, MANIFEST, file)  # as it lies there: another version of pyarrow may have written it
    record = {"sha256": _sha256(file), "counts": counts}
    output.put_once(RECORD, f"{canonical_json(record)}\n".encode(), broken=lambda existing: True)
    return counts


def _manifest_there(file: Path, output: Output, plan: Plan) -> dict[str, int] | None:
    """The counts of the manifest that is there, copied to the file, where nothing in it is still to come."""
    try:
        record: dict[str, Any] = json.loads(output.get(RECORD))
        digest, counts = record["sha256"], {str(state): int(count) for state, count in record["counts"].items()}
        if not {"done", "failed"} >= counts.keys():
            return None
        _copy(output, MANIFEST, file)
    except (ObjectNotFound, ValueError, KeyError, TypeError, AttributeError):
        return None
    return counts if _sha256(file) == digest and not _has_come(output, plan, file) else None


def _has_come(output: Output, plan: Plan, file: Path) -> bool:
    """Whether a job that failed, by the manifest, has an image by now."""
    with Rows(file) as rows:
        failed = (row["id"] for row in rows.between(0, len(rows), ["id", "state"]) if row["state"] == "failed")
        return any(output.exists(plan.image_name(JobId(job_id))) for job_id in failed)


def _copy(output: Output, name: str, file: Path) -> None:
    with file.open("wb") as copy:
        while piece := output.read(name, copy.tell(), PIECE_BYTES):
            copy.write(piece)


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _put_manifest(output: Output, file: Path) -> None:
    def same_rows(existing: Existing) -> bool:  # another version of pyarrow writes the same rows as other bytes
        try:
            there: bool = pq.read_table(pa.BufferReader(existing.read())).equals(pq.read_table(file))
        except pa.ArrowException:
            return False
        return there

    output.put_file(MANIFEST, file, content_type="application/vnd.apache.parquet", ours=same_rows)
