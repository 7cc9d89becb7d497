"""Every format of prompt file -> rows, with the line number of whatever is wrong.

`.txt`    one prompt a line; blank lines and lines that begin with `#` are passed over.
`.jsonl`  one JSON object a line, fields named as in diffusers (`.ndjson` is the same).

A new format is one reader and one row in READERS.
"""

import json
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from producer.errors import JobError, PromptFileError
from producer.job import check_text

MAX_DIGITS = 400
"""Of a whole number in JSON: more than any float has, and less than what Python refuses to read."""


@dataclass(frozen=True, slots=True)
class Row:
    """What one row of a prompt file says, before defaults and checks. `line` counts from 1."""

    line: int
    fields: dict[str, Any]


Reader = Callable[[str, Path], Iterator["Row | PromptFileError"]]
"""A reader goes on after a bad row: it yields the error in the row's place."""


def read_prompt_file(path: str | Path) -> Iterator[Row | PromptFileError]:
    """The rows of a prompt file in order, and for each row that cannot be read its error.

    Raises PromptFileError at once for a file that is not there or whose format is not known.
    """
    name, path = str(path), Path(path)
    reader = READERS.get(path.suffix.lower())
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except FileNotFoundError as error:
        raise PromptFileError(name, 0, None, "no such file") from error
    except OSError as error:
        raise PromptFileError(name, 0, None, f"cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise PromptFileError(name, 0, None, "cannot be read: its name has a NUL") from error
    if is_folder:
        raise PromptFileError(name, 0, None, "is a folder, not a prompt file")
    if reader is None:
        raise PromptFileError(name, 0, None, f"is not a known prompt file ({', '.join(READERS)})")
    return reader(name, path)


def _lines(name: str, path: Path) -> Iterator[tuple[int, str] | PromptFileError]:
    """Numbered lines of UTF-8 text, with or without a byte order mark, ended as on Unix or on Windows."""
    for number, raw in enumerate(_raw_lines(name, path), start=1):
        if number == 1 and raw.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise PromptFileError(name, 1, None, "is UTF-16; save it as UTF-8")
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            yield PromptFileError(name, number, None, f"is not UTF-8 at byte {error.start + 1} of the line")
            continue
        yield number, line.rstrip("\r\n")


def _raw_lines(name: str, path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from file
    except OSError as error:
        raise PromptFileError(name, 0, None, f"cannot be read: {error.strerror}") from error


def read_txt(name: str, path: Path) -> Iterator[Row | PromptFileError]:
    """One prompt a line. Blank lines and lines that begin with `#` are passed over."""
    for item in _lines(name, path):
        if isinstance(item, PromptFileError):
            yield item
            continue
        number, line = item
        prompt = line.strip(" \t")
        if not prompt.strip() or prompt.startswith("#"):
            continue
        try:
            yield Row(number, {"prompt": check_text("prompt", prompt)})
        except JobError as error:
            yield PromptFileError(name, number, error.field, error.problem)


def read_jsonl(name: str, path: Path) -> Iterator[Row | PromptFileError]:
    """One JSON object a line. Blank lines are passed over."""
    for item in _lines(name, path):
        if isinstance(item, PromptFileError):
            yield item
            continue
        number, line = item
        if not line.strip():
            continue
        try:
            yield Row(number, _json_object(line))
        except JobError as error:
            yield PromptFileError(name, number, error.field, error.problem)
        except (ValueError, RecursionError) as error:
            yield PromptFileError(name, number, None, _not_json(error))


def _json_object(line: str) -> dict[str, Any]:
    value = json.loads(line, object_pairs_hook=_no_field_twice, parse_constant=_no_constant, parse_int=_whole)
    if not isinstance(value, dict):
        raise ValueError(f'must be a JSON object such as {{"prompt": "..."}}, got {type(value).__name__}')
    return value


def _no_field_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise JobError(twice, "is given twice in this row")
    return fields


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"has a number of {len(digits)} digits")
    return int(digits)


def _no_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _not_json(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"is not JSON: {error.msg} at character {error.colno}"
    if isinstance(error, RecursionError):
        return "is not a row: nested too deeply"
    return str(error)


READERS: dict[str, Reader] = {
    ".txt": read_txt,
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
}
