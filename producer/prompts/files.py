"""Every format of prompt file -> rows, with the line number of whatever is wrong.

`.txt`      one prompt a line; blank lines and lines that begin with `#` are passed over.
`.jsonl`    one JSON object a line, fields named as in diffusers (`.ndjson` is the same).
`.csv`, `.tsv`, `.parquet`, `.xlsx`, `hf://`    tables, whose first row or schema names the columns.

Any may be packed: `.gz` or `.zst`. A new format is one reader and one row in READERS. docs/prompt-files.md is the
user's page.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, BinaryIO

from promptmill.producer.errors import JobError, PromptFileError
from promptmill.producer.prompts.columns import REJECTED, Columns, Reading, Row, with_prompt
from promptmill.producer.prompts.dialects import DIALECTS
from promptmill.producer.prompts.invisible import bare
from promptmill.producer.prompts.lines import byte_lines, not_utf8
from promptmill.producer.prompts.openai_batch import is_request, request
from promptmill.producer.prompts.sources import READ_ERRORS, Source, find_sources, format_of, read_error
from promptmill.producer.prompts.standard_input import looks_like_json, rewound
from promptmill.producer.prompts.tables import read_csv, read_hub, read_parquet, read_tsv
from promptmill.producer.prompts.workbooks import read_xlsx
from promptmill.producer.values import check_text

__all__ = ["Reading", "Row", "read_prompt_files"]

MOST_LAYOUTS = 1000  # of JSON objects, kept in memory

Item = Row | PromptFileError

Reader = Callable[[str, BinaryIO, Reading], Iterator[Item]]
"""A reader goes on after a bad row: it yields the error in the row's place."""


def read_prompt_files(names: Sequence[str], reading: Reading | None = None) -> Iterator[tuple[str, Item]]:
    """The rows of prompt files in order, each with its file's name, and for each row that cannot be read its error.

    `names` are paths, patterns (`prompts/*.csv`), `-` for standard input, `gs://bucket/object` or `hf://owner/name`.
    Raises PromptFileError: at once for a file that is not there or whose format is not known, and on the way for one
    that cannot be read on.
    """
    reading = reading or Reading()
    return _rows([_known(source, reading) for source in find_sources(names)], reading)


def _known(source: Source, reading: Reading) -> Source:
    if reading.format and not source.is_dataset:
        suffix, pack = format_of(f"any.{reading.format.lstrip('.')}")
        source = replace(source, suffix=suffix, pack=source.pack or pack)
    if reading.dialect:
        source = _of_dialect(source, reading.dialect)
    if source.suffix is not None and source.suffix not in READERS:
        known = ", ".join(name for name in READERS if name.startswith("."))
        raise PromptFileError(source.name, 0, None, f"is not a known prompt file ({known}, each also .gz, .zst)")
    return source


def _of_dialect(source: Source, dialect: str) -> Source:
    wanted = DIALECTS[dialect].format
    if source.suffix not in (None, wanted) and READERS.get(source.suffix or "") is not READERS[wanted]:
        raise PromptFileError(source.name, 0, None, f"is not read as {dialect}'s: those files are {wanted}")
    return replace(source, suffix=wanted)


def _rows(sources: Sequence[Source], reading: Reading) -> Iterator[tuple[str, Item]]:
    for source in sources:
        name = source.name
        try:
            with source.open() as file:
                stream, suffix = (file, source.suffix) if source.suffix is not None else _guess(file)
                for row in READERS[suffix](name, stream, reading):
                    yield name, row
        except READ_ERRORS as error:
            raise read_error(name, error) from error


def _guess(file: BinaryIO) -> tuple[BinaryIO, str]:
    """A stream without a format is JSON lines where it begins with an object, else text."""
    head, stream = rewound(file)
    return stream, ".jsonl" if looks_like_json(head) else ".txt"


def read_txt(name: str, file: BinaryIO, reading: Reading) -> Iterator[Item]:
    """One prompt per line. Lines on which nobody sees anything and those that begin with `#` are passed over."""
    of_line = DIALECTS[reading.dialect].of if reading.dialect else None
    for number, raw in enumerate(byte_lines(name, file), start=1):
        try:
            line = raw.decode().rstrip("\r\n")
            prompt = bare(line)
            if not prompt or prompt.startswith("#") or prompt.isspace():
                continue
            yield (
                Row(number, *of_line(prompt)) if of_line else Row(number, {"prompt": check_text("prompt", prompt)}, {})
            )
        except UnicodeDecodeError as error:
            yield not_utf8(name, number, error)
        except JobError as error:
            row = None if of_line else {"prompt": line}
            yield PromptFileError(name, number, error.field, error.problem, line, row)


def read_jsonl(name: str, file: BinaryIO, reading: Reading) -> Iterator[Item]:
    """One JSON object a line. Blank lines are passed over."""
    read = _Objects(reading)
    for number, raw in enumerate(byte_lines(name, file), start=1):
        try:
            line = raw.decode()
            if not line.isspace():
                yield read.row(number, line.rstrip("\r\n"))
        except UnicodeDecodeError as error:
            yield not_utf8(name, number, error)
        except JobError as error:
            yield PromptFileError(name, number, error.field, error.problem, line.rstrip("\r\n"), _object(line))
        except (ValueError, RecursionError) as error:
            yield PromptFileError(name, number, None, _not_json(error), line.rstrip("\r\n"))


class _Objects:
    """Rows that are JSON objects. What columns mean is found out once for all rows that have the same ones."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._layouts: dict[tuple[str, ...], Columns] = {}

    def row(self, number: int, line: str) -> Row:
        """Raises JobError for a wrong column, ValueError and RecursionError for what is not a JSON object."""
        said = _decoded(line)
        if type(said) is not dict:
            raise ValueError(f'must be a JSON object such as {{"prompt": "..."}}, got {type(said).__name__}')
        if REJECTED in said:
            del said[REJECTED]
        if self._reading.dialect or is_request(said):
            return Row(number, *request(said))
        names, values = tuple(said), tuple(said.values())
        columns = self._layouts.get(names) or self._layout(names)
        if columns.own_names and None not in values:
            return Row(number, said, {})
        return Row(number, *columns.split(values))

    def _layout(self, names: tuple[str, ...]) -> Columns:
        if len(self._layouts) >= MOST_LAYOUTS:
            self._layouts.clear()
        columns = self._layouts[names] = Columns(names, with_prompt(names, self._reading))
        return columns


def _no_field_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise JobError(twice if twice.isprintable() else repr(twice), "is given twice in this row")
    return fields


def _no_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not valid JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_no_field_twice, parse_constant=_no_constant)


_scan: Any = _DECODER.scan_once  # type: ignore[attr-defined]  # the module's own decoder calls it so


def _decoded(line: str) -> Any:
    """`_DECODER.decode`, without its looks for spaces around where there are none: a tenth of a plan's time."""
    if line.startswith("{"):
        try:
            said, end = _scan(line, 0)
        except StopIteration:
            end = -1
        if end == len(line):
            return said
    return _DECODER.decode(line)


def _object(line: str) -> dict[str, Any] | None:
    """The row of which something is wrong; None where it cannot be told what it says."""
    try:
        said = _DECODER.decode(line)
    except (JobError, ValueError, RecursionError):
        return None
    return {name: value for name, value in said.items() if name != REJECTED}


_TOO_LONG = re.compile(r"value has (\d+) digits")  # what Python says of a number that it does not read


def _not_json(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"is not valid JSON: {error.msg} at character {error.colno}"
    if isinstance(error, RecursionError):
        return "is not a row: nested too deeply"
    too_long = _TOO_LONG.search(str(error))
    return f"has a number of {too_long[1]} digits" if too_long else str(error)


READERS: dict[str, Reader] = {
    ".txt": read_txt,
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".parquet": read_parquet,
    ".xlsx": read_xlsx,
    "hf://": read_hub,
}
