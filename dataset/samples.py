"""What goes into a shard: the image of each row of the manifest that has one, and what is said of it."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from types import NoneType
from typing import Any, get_args, get_type_hints

from promptmill.dataset.manifest import JOB_COLUMNS, SCHEMA
from promptmill.dataset.options import PackOptions, split_of
from promptmill.dataset.parallel import mapped
from promptmill.dataset.pieces import Piece
from promptmill.dataset.rows import Rows
from promptmill.dataset.transcoder import Transcoder
from promptmill.producer.errors import PromptmillError
from promptmill.producer.job import Job, canonical_json
from promptmill.producer.outputs.output import ObjectNotFound, Output

OF_THE_OBJECT = (
    "state",
    "reason",
    "path",
    "bytes",
    "crc32c",
    "sha256",
    "image_width",
    "image_height",
    "marks",
    "flagged",
    "checks",
    "worker",
    "render_s",
)
"""Columns of the manifest that speak of the image as it lies in the run's output, not of the sample."""

COLUMNS = tuple(name for name in SCHEMA.names if name not in OF_THE_OBJECT)
"""What a sample says beside its image."""

ALWAYS = tuple(name for name, hint in get_type_hints(Job).items() if NoneType not in get_args(hint))
"""A job's fields that are never null: readers infer a column's type from the first samples."""

Row = dict[str, Any]


class ImageChangedError(PromptmillError):
    """An image that is not the one of which the manifest tells."""


@dataclass(frozen=True)
class Sample:
    """One image of a dataset, as it will lie there, and its row of the manifest."""

    row: Row
    data: bytes
    extension: str
    content_type: str

    @property
    def key(self) -> str:
        """Its name within its shard."""
        return f"{self.row['index']:09d}"


def rows_of(rows: Rows, piece: Piece, options: PackOptions) -> Iterator[Row]:
    """The manifest's rows of a piece."""
    for row in rows.between(piece.first, piece.end):
        if split_of(row["prompt"], options.splits) == piece.split:
            yield row


def read_samples(output: Output, rows: Iterator[Row], transcoder: Transcoder) -> Iterator[Sample]:
    """The samples of rows that have an image, in order.

    Raises ImageChangedError, OutputError.
    """
    done = (row for row in rows if row["state"] == "done")
    yield from mapped(lambda row: _sample(output, row, transcoder), done)


def _sample(output: Output, row: Row, transcoder: Transcoder) -> Sample:
    try:
        data = output.get(row["path"])
    except ObjectNotFound as error:
        raise ImageChangedError(f"{output.url}/{row['path']} is gone since the manifest was written") from error
    if hashlib.sha256(data).hexdigest() != row["sha256"]:
        raise ImageChangedError(f"{output.url}/{row['path']} has other bytes than when the manifest was written")
    return Sample(row, transcoder(data), transcoder.extension, transcoder.content_type)


def job_json(row: Row) -> str:
    """The row's job, as `Job.to_json`."""
    return canonical_json({name: row[name] for name in JOB_COLUMNS if row[name] is not None})


def sample_record(row: Row) -> dict[str, Any]:
    """What `INDEX.json` holds: the same keys, of the same types, in every sample. `job` is JSON of all fields."""
    fields = {name: row[name] for name in ALWAYS}
    labels = json.loads(row["labels"]) if row["labels"] else {}
    return {"index": row["index"], "id": row["id"], **fields, "job": job_json(row), "labels": labels}
