"""Numbers that others gave to a run's images, by index: CSV with a header, JSON lines, or Parquet (as `curate` writes).

    index,aesthetic,clip
    0,5.9,0.31

`pack` keeps them in the run's output as scores.parquet, from which the manifest has its columns `score_aesthetic`.
"""

import csv
import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from promptmill.producer.errors import PromptmillError
from promptmill.producer.outputs.output import ObjectNotFound, Output

SCORES = "scores.parquet"

Scores = Mapping[str, Sequence[float]]
"""By name a number for each index of the run, NaN where there is none."""

INDEX = "index"
NONE = float("nan")
ROWS_HELD = 10_000


class ScoresError(PromptmillError):
    """A file of scores that cannot be used; names the line and the column."""


def stored_scores(output: Output, jobs: int) -> dict[str, "array[float]"]:
    """Those that a run was packed with, if there are any. Raises ScoresError for a damaged file, OutputError."""
    scores: dict[str, array[float]] = {}
    try:
        for line, row in _parquet_rows(pa.BufferReader(output.get(SCORES))):
            _enter(scores, row, jobs, f"{SCORES}:{line}")
    except ObjectNotFound:
        return {}
    except pa.ArrowException as error:
        raise ScoresError(f"{output.url}/{SCORES}: {error}") from error
    return scores


def write_scores(file: Path, scores: Scores) -> None:
    """Write them as `stored_scores` reads them; the same bytes for the same numbers, with one version of pyarrow."""
    schema = pa.schema({INDEX: pa.int64(), **{name: pa.float64() for name in scores}})
    jobs = len(next(iter(scores.values())))
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for first in range(0, jobs, ROWS_HELD):
            columns = {name: _nullable(column[first : first + ROWS_HELD]) for name, column in scores.items()}
            index = range(first, min(first + ROWS_HELD, jobs))
            writer.write_table(pa.table({INDEX: index, **columns}, schema=schema))


def _nullable(column: Sequence[float]) -> list[float | None]:
    return [finite(number) for number in column]


def finite(number: float) -> float | None:
    """The number, None for NaN and what is without end: no JSON has them."""
    return number if number - number == 0 else None


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


def _parquet_rows(file: Any) -> Iterator[tuple[int, Mapping[str, Any]]]:
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
        if name not in (INDEX, "bytes", None):  # the manifest has the bytes
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
