"""Numbers that others gave to a run's images, by index: a CSV with a header, or JSON lines.

index,aesthetic,clip
0,5.9,0.31
"""

import csv
import json
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from promptmill.producer.errors import PromptmillError

INDEX = "index"
NONE = float("nan")


class ScoresError(PromptmillError):
    """A file of scores that cannot be used; names the line and the column."""


def read_scores(file: Path, jobs: int) -> dict[str, "array[float]"]:
    """The columns of a file, a number for each index of the run (NaN: none), eight bytes each. Raises ScoresError."""
    scores: dict[str, array[float]] = {}
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            for line, row in _rows(file, lines):
                _enter(scores, row, jobs, f"{file}:{line}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ScoresError(f"{file}: {error}") from error
    if not scores:
        raise ScoresError(f"{file}: has no scores: expected a column {INDEX!r}, and one of numbers for each score")
    return scores


def _rows(file: Path, lines: IO[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    if file.suffix in (".csv", ".tsv"):
        table = csv.DictReader(lines, delimiter="\t" if file.suffix == ".tsv" else ",")
        yield from ((table.line_num, row) for row in table)
        return
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
