"""Data frames as prompt files: pandas', Polars' and Arrow's tables, known by their methods: none is imported."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from promptmill.producer.errors import JobError, PromptFileError
from promptmill.producer.prompts.columns import Columns, Reading, Row


class Frame(Protocol):
    """A data frame, whosever."""

    @property
    def columns(self) -> Any: ...


ROWS = 4096
"""Turned into Python's values at once."""

_METHODS = ("iloc", "iter_rows", "to_batches")
_NAME = "data frame"


def is_frame(value: Any) -> bool:
    """Whether it is a data frame of a kind that `read_frame` reads."""
    return hasattr(value, "columns") and any(hasattr(value, method) for method in _METHODS)


def read_frame(frame: Any, reading: Reading | None = None) -> Iterator[Row | PromptFileError]:
    """The rows of a data frame, by its columns' names; those that are no fields are labels.

    What is missing (None, NaN, NaT, NA) is not given. Raises PromptFileError for a column that was surely mistyped.
    """
    names = [str(name) for name in (frame.column_names if hasattr(frame, "column_names") else frame.columns)]
    try:
        columns = Columns(names, reading or Reading())
    except JobError as error:
        raise PromptFileError(_NAME, 0, error.field, error.problem) from error
    for number, values in enumerate(_rows(frame), start=1):
        try:
            given, labels = columns.split([_plain(values[name]) for name in names])
        except JobError as error:
            yield PromptFileError(_NAME, number, error.field, error.problem)
            continue
        yield Row(number, given, labels)


def _rows(frame: Any) -> Iterator[Mapping[str, Any]]:
    if hasattr(frame, "iter_rows"):  # Polars
        yield from frame.iter_rows(named=True)
    elif hasattr(frame, "to_batches"):  # Arrow
        for batch in frame.to_batches(ROWS):
            yield from batch.to_pylist()
    else:  # pandas
        named = frame.rename(columns=str)
        for start in range(0, len(named), ROWS):
            part = named.iloc[start : start + ROWS].astype(object)
            yield from part.where(part.notna(), None).to_dict("records")


def _plain(value: Any) -> Any:
    """Python's own value: numpy's scalars and arrays have `tolist`, dates are labels as text; a NaN is missing."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, float) and math.isnan(value):
        return None
    return value.isoformat() if hasattr(value, "isoformat") else value
