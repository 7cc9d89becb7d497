"""The same rows in every format of prompt file, packed or not."""

import csv
import gzip
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from promptmill.producer.errors import PromptFileError
from promptmill.producer.prompts.files import Reading, Row, read_prompt_files

PACK: Mapping[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": lambda data: zstandard.ZstdCompressor().compress(data),
}
TABLES = (".csv", ".tsv", ".parquet")


def in_format(suffix: str, rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows as a file of this format; of a `.txt` the prompts."""
    if suffix == ".txt":
        return "".join(f"{row['prompt']}\n" for row in rows).encode()
    if suffix == ".jsonl":
        return "\n".join(map(json.dumps, rows)).encode()
    names = list(dict.fromkeys(name for row in rows for name in row))
    if suffix == ".xlsx":
        return _workbook([names, *([row.get(name) for name in names] for row in rows)])
    if suffix == ".parquet":
        out = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(list(rows)), out)
        return out.getvalue()
    text = io.StringIO()
    writer = csv.DictWriter(text, names, delimiter="\t" if suffix == ".tsv" else ",")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _workbook(rows: Sequence[Sequence[Any]]) -> bytes:
    book, data = openpyxl.Workbook(), io.BytesIO()
    for line, cells in enumerate(rows, start=1):
        for column, value in enumerate(cells, start=1):
            cell = book.active.cell(line, column, value)
            if isinstance(value, str):
                cell.data_type = "s"  # `=1+1` is text here, and no formula
    book.save(data)
    return data.getvalue()


def read(*names: object, **reading: Any) -> list[Row | PromptFileError]:
    """All that is read, `reading` being fields of Reading."""
    return [row for _, row in read_prompt_files([str(name) for name in names], Reading(**reading))]


def said(rows: Sequence[Row | PromptFileError]) -> list[tuple[dict[str, Any], Mapping[str, Any]]]:
    """Fields and labels of rows none of which is wrong."""
    assert all(isinstance(row, Row) for row in rows), rows
    return [(row.fields, row.labels) for row in rows if isinstance(row, Row)]


def prompts(rows: Sequence[Row | PromptFileError]) -> list[str]:
    """What the rows ask for, none of which is wrong."""
    return [fields["prompt"] for fields, _ in said(rows)]
