"""Numbers that others gave to a run's images, by index: CSV with a header, JSON lines, or Parquet (as `curate` writes).

index,aesthetic,clip
0,5.9,0.31
"""

import csv
import json
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from promptmill.producer.errors import PromptmillError

INDEX = "index"
NONE = float("nan")
ROWS_HELD = 10_000


class ScoresError(PromptmillError):
    """A file of scores that cannot be used; names the line and the column."""


def read_scores(file: Path, jobs: int) -> dict[str, "array[float]"]:
    """The columns of a file, a number for each index of the run (NaN: none), eight bytes each. Raises ScoresError."""
    scores: dict[str, array[float]] = {}
    try:
        for line, row in _parquet_rows(file) if file.suffix == ".parquet" else _rows(file):
            _enter(scores, row, jobs, f"{file}:{line}")
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        raise ScoresError(f"{file}: {error}") from error
    if not scores:
        raise ScoresError(f"{file}: has no scores: expected a column {INDEX!r}, and one of numbers for each score")
    return scores


def _parquet_rows(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The columns of numbers; texts and lists beside them are passed over."""
    with pq.ParquetFile(file) as table:
        schema = table.schema_arrow
        numbers = [one.name for one in schema if pa.types.is_integer(one.type) or pa.types.is_floating(one.type)]
        for batch in table.iter_batches(ROWS_HELD, columns=numbers):
            yield from enumerate(batch.to_pylist(), start=1)


def _rows(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        if file.suffix in (".csv", ".tsv"):
            table = csv.DictReader(lines, delimiter="\t" if file.suffix == ".tsv" else ",")
            yield from ((table.line_num, row) for row in table)
        else:
            yield from _json_rows(file, lines)


def _json_rows(file: Path, lines: IO[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ScoresError(f"{file}:{number}: not valid JSON: {error}") from error
        if not isinstance(row, dict):
            raise ScoresError(f"{file}:{number}: expected an object with {INDEX!r} and numbers, got {line[:60]!r}")
        yield number, row


def _enter(scores: dict[str, "array[float]"], row: Mapping[str, Any], jobs: int, where: str) -> None:
    index = _number(row.get(INDEX), f"{where}: {INDEX}")
    if index != index or not index.is_integer() or not 0 <= index < jobs:
        raise ScoresError(f"{where}: {INDEX} must be a whole number from 0 to {jobs - 1}, got {row.get(INDEX)!r}")
    for name, value in row.items():
        if name != INDEX and name is not None:
            if name not in scores:
                scores[name] = array("d", [NONE]) * jobs
            scores[name][int(index)] = _number(value, f"{where}: {name}")


def _number(value: Any, where: str) -> float:
    if value is None or value == "":
        return NONE
    try:
        if isinstance(value, bool):
            raise ValueError
        return float(value)
    except (TypeError, ValueError) as error:
        raise ScoresError(f"{where}: expected a number, got {value!r}") from error
