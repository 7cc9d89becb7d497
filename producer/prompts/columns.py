"""What a row's columns are: fields of a job, or labels that travel along."""

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple

from promptmill.producer.errors import JobError
from promptmill.producer.fields import ALIASES, FIELD_NAMES, ROWS
from promptmill.producer.values import Form, check_characters

NEAR = 0.8
"""How alike (difflib's ratio) a column's name is to a field's when it was surely meant for it."""
NEAR_WORD = 0.6
"""The same for what is left of both without their common first words: `prompt_id` is no `prompt_2`."""

PROMPT_NAMES = ("prompt", "caption", "text")
"""What a column of prompts may be called, in any case; the first that is there counts."""

REJECTED = "_rejected"
"""Why a row is in a file of rejects (rejects.py): read back, it is passed over."""

IMAGES = "num_images_per_prompt"
"""A row's own number of images, as diffusers calls it: a field of rows and of no job."""

NAMES = (*FIELD_NAMES, *ALIASES, IMAGES)
_BARE = {name.replace("_", ""): name for name in NAMES}

_FORMS: dict[str, Form] = {name: ROWS[ALIASES.get(name, name)].value.form for name in (*FIELD_NAMES, *ALIASES)} | {
    IMAGES: "whole"
}

WHOLE = frozenset(name for name, form in _FORMS.items() if form in ("whole", "wholes", "pair"))
"""Fields of whole numbers, or of several."""
TEXTS = frozenset(name for name, form in _FORMS.items() if form in ("text", "name"))
"""Fields of text."""


class Row(NamedTuple):
    """What one row says, before defaults and checks. `line` counts from 1; of a table, where its record begins."""

    line: int
    fields: dict[str, Any]
    labels: Mapping[str, Any] = {}
    unused: tuple[str, ...] = ()


class Said(NamedTuple):
    """What a row of another program's file says. `unused`: its settings that mean nothing here."""

    fields: dict[str, Any]
    labels: Mapping[str, Any] = {}
    unused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reading:
    """How prompt files are read.

    `columns`: a field's column, where its name is another one. `labels`: columns that are labels though their names
    look like fields'. `format`: a suffix without its dot (`csv`, `jsonl.gz`), for names that do not tell. `dialect`:
    another program's way to write a line (dialects.py). `sheet`: that of a workbook. `note` is told what is left out.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    labels: frozenset[str] = frozenset()
    format: str | None = None
    dialect: str | None = None
    sheet: str | None = None
    note: Callable[[str], None] = field(default=lambda text: None, compare=False)


Converters = Callable[[str, str], Callable[[Any], Any]]
"""What turns a column's values into JSON's, by the field's name ('' for a label) and its own; None is left out."""


class Columns:
    """The columns of a table, or of a row that is a JSON object, by their indexes. Raises JobError for a wrong name."""

    def __init__(self, names: Sequence[str], reading: Reading, converters: Converters | None = None) -> None:
        self.names = tuple(names)
        self._fields: list[tuple[int, str, Callable[[Any], Any] | None]] = []
        self._labels: list[tuple[int, str, Callable[[Any], Any] | None]] = []
        for index, column in enumerate(names):
            meant = fields_of(column, reading)
            for name in meant:
                self._fields.append((index, name, converters and converters(name, column)))
            if not meant and column:  # what has no name, such as an index that pandas wrote, is passed over
                self._labels.append((index, column, converters and converters("", column)))
        self.own_names = not self._labels and [name for _, name, _ in self._fields] == list(names)
        """Each column is the field of its name."""

    def split(self, values: Sequence[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """A row's fields and its labels; what is None is neither. Raises JobError for a label that is not sound."""
        given: dict[str, Any] = {}
        for index, name, convert in self._fields:
            value = convert(values[index]) if convert else values[index]
            if value is not None:
                given[name] = value
        labels: dict[str, Any] = {}
        for index, column, convert in self._labels:
            value = convert(values[index]) if convert else values[index]
            if value is not None:
                labels[column] = value
                if type(value) is str and not value.isprintable():
                    check_characters(column, value)
        return given, labels


def fields_of(column: str, reading: Reading) -> list[str]:
    """The fields that a column fills, none for a label. Raises JobError for a name that was surely mistyped."""
    mapped = [name for name, wanted in reading.columns.items() if wanted == column]
    if mapped or column in reading.labels:
        return mapped
    if column in NAMES:
        return [] if column in reading.columns else [column]
    near = near_name(column)
    if near:
        shown = shown_name(column)
        ways = f"--column {near}={shown}, or a label: --label {shown}"
        raise JobError(shown, f"is not a field of a job; did you mean {near!r}? ({ways})")
    check_characters("a column's name", column)
    return []


def shown_name(column: str) -> str:
    """A column's name, fit for a message of one line and for a shell."""
    return column if column.isprintable() and column == column.strip() and len(column) <= 60 else repr(column[:60])


@lru_cache(1024)
def near_name(column: str) -> str | None:
    """The field that a column was surely meant for, though it is not one."""
    words = "_".join(column[:60].lower().replace("-", "_").split())
    if words.replace("_", "") in _BARE:
        return _BARE[words.replace("_", "")]
    found = difflib.get_close_matches(words, NAMES, n=3, cutoff=NEAR)
    return next((name for name in found if _alike_at_its_end(words, name)), None)


def _alike_at_its_end(column: str, name: str) -> bool:
    ours, theirs = column.split("_"), name.split("_")
    while ours and theirs and ours[0] == theirs[0]:
        del ours[0], theirs[0]
    return difflib.SequenceMatcher(None, "_".join(ours), "_".join(theirs)).ratio() >= NEAR_WORD


def with_prompt(names: Sequence[str], reading: Reading) -> Reading:
    """The reading with the column of the prompts, where no flag and no `prompt` says it: the first of PROMPT_NAMES."""
    if "prompt" in reading.columns or "prompt" in names:
        return reading
    for wanted in PROMPT_NAMES:
        found = [name for name in names if name.strip().lower() == wanted and name not in reading.labels]
        if len(found) == 1:
            return replace(reading, columns={"prompt": found[0], **reading.columns})
    return reading


def columns_of_table(names: Sequence[str], reading: Reading, converters: Converters) -> Columns:
    """A table's columns, which must have a prompt and all that flags name. Raises JobError."""
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise JobError(shown_name(twice), "is there twice")
    reading = with_prompt(names, reading)
    columns = Columns(names, reading, converters)
    for column in {"prompt": "prompt", **reading.columns}.values():
        if column not in names:
            there = ", ".join(map(shown_name, names[:20]))
            raise JobError(shown_name(column), f"no such column (there are: {there}); --prompt-column names another")
    return columns


def cell_converter(name: str, column: str = "") -> Callable[[str], Any]:
    """A table's cell as JSON would have it: text, or what the field takes. An empty one is None."""
    return _OF_A_CELL[_FORMS[name]] if name else _text


def _text(cell: str) -> str | None:
    return None if not cell or cell.isspace() else cell


def _list(cell: str) -> Any:
    value = _json(f"[{cell}]") if not cell.lstrip().startswith("[") else _json(cell)
    return value or (cell if cell.strip() else None)


def _value(cell: str) -> Any:
    if not cell or cell.isspace():
        return None
    try:
        return int(cell) if len(cell) <= 20 and cell.isascii() and "_" not in cell else _number(cell)
    except ValueError:
        return _number(cell)


def _number(cell: str) -> Any:
    value = _json(cell.strip().lower())
    return value if isinstance(value, bool | int | float) else cell


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


_OF_A_CELL: dict[Form, Callable[[str], Any]] = {
    "text": _text,
    "name": _text,
    "truth": _value,
    "whole": _value,
    "number": _value,
    "pair": _list,
    "wholes": _list,
    "numbers": _list,
}
