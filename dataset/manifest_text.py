"""The manifest's rows as text, row by row: a new form is one function and one row in FORMS."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from promptmill.dataset.manifest import SCHEMA, Row, manifest_rows
from promptmill.dataset.stored_manifest import open_manifest
from promptmill.producer.job import canonical_json
from promptmill.producer.outputs.output import Output
from promptmill.producer.plan_files import load_plan

JSON_COLUMNS = ("template", "choices", "labels", "notes", "checks")
"""Columns whose text is JSON."""


def rows_of_run(output: Output, failures: Callable[[], dict[int, str]]) -> Iterator[Row]:
    """The rows of the manifest that is there; without one, those that it would have by now.

    Raises ManifestError, PlanError, OutputError.
    """
    manifest = open_manifest(output)
    if manifest is not None:
        with manifest:
            yield from manifest.rows()
        return
    with load_plan(output) as plan:
        for rows in manifest_rows(output, plan, failures()):
            yield from ({name: row.get(name) for name in SCHEMA.names} for row in rows)


def jsonl_lines(rows: Iterable[Row]) -> Iterator[str]:
    """A JSON object per row, without what is null; labels and such as objects."""
    for row in rows:
        told = {name: value for name, value in row.items() if value is not None}
        yield canonical_json({**told, **{name: json.loads(told[name]) for name in JSON_COLUMNS if name in told}})


def csv_lines(rows: Iterable[Row]) -> Iterator[str]:
    """RFC 4180, a header first; what is no single value is JSON. A cell with line breaks is quoted."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="")
    columns: list[str] | None = None
    for row in rows:
        if columns is None:
            columns = list(row)
            writer.writerow(columns)
            yield _taken(buffer)
        writer.writerow([_cell(row[name]) for name in columns])
        yield _taken(buffer)


def _cell(value: Any) -> Any:
    return canonical_json(value) if isinstance(value, list | bool) else value


def _taken(buffer: io.StringIO) -> str:
    text = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return text


FORMS: dict[str, Callable[[Iterable[Row]], Iterator[str]]] = {"jsonl": jsonl_lines, "csv": csv_lines}
"""Form -> lines without their ends."""
