"""Rows that were wrong: the first are kept to be listed, all go to a file, as JSON lines.

{"file": "a.csv", "line": 12, "field": "width", "problem": "must be ...", "text": "THE ROW"}
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from promptmill.producer.errors import PlanError, PromptFileError
from promptmill.producer.spool import Pages

MOST_LISTED = 20
MOST_KEPT = 100_000
"""For `rejects.jsonl` in the output; a file of the user's own (--rejects) has them all."""


_START = b'{"file": '


class Rejects:
    """Wrong rows of one run. `path` is the user's file; with `keep`, lines for the output are kept as well."""

    def __init__(self, path: Path | None = None, *, keep: bool = False) -> None:
        self.count = 0
        self.first: list[PromptFileError] = []
        self._kept = Pages() if keep else None
        self._file = _open(path) if path else None

    def add(self, error: PromptFileError, fields: Mapping[str, Any] | None = None) -> None:
        """`fields` are the row's, where it could be read."""
        self.count += 1
        if len(self.first) < MOST_LISTED:
            self.first.append(error)
        if self._kept is None and self._file is None:
            return
        line = reject_line(error, fields)
        if self._kept is not None and len(self._kept) < MOST_KEPT:
            self._kept.append(line)
        if self._file is not None:
            self._file.write(line.decode())

    def lines(self) -> Iterator[bytes]:
        """Those that are kept."""
        kept = self._kept
        return (kept[number] for number in range(len(kept))) if kept is not None else iter(())

    def close(self) -> None:
        if self._kept is not None:
            self._kept.close()
        if self._file is not None:
            self._file.close()


def reject_line(error: PromptFileError, fields: Mapping[str, Any] | None) -> bytes:
    """A wrong row as a line of JSON. What is no Unicode, such as half a surrogate pair, is a question mark."""
    said = {"file": error.path, "line": error.line, "field": error.field, "problem": error.problem}
    text = error.text if error.text is not None else row_text(fields)
    if text is not None:
        said["text"] = text
    return (json.dumps(said, ensure_ascii=False) + "\n").encode(errors="replace")


def row_text(fields: Mapping[str, Any] | None) -> str | None:
    """A row's text as well as its fields tell it: the prompt where there is nothing else, or JSON.

    None for what is nested too deeply."""
    if fields is None:
        return None
    if fields.keys() == {"prompt"} and isinstance(fields["prompt"], str):
        return fields["prompt"]
    try:
        return json.dumps(dict(fields), ensure_ascii=False, default=str)
    except RecursionError:
        return None


def _open(path: Path) -> TextIO:
    """A file of rejects from before is written anew; anything else may be somebody's prompts. Raises PlanError."""
    try:
        if path.exists() and _start_of(path) not in (b"", _START):
            raise PlanError(f"{path} is there and is no file of rejects: name another")
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise PlanError(f"{path}: {error.strerror}") from error


def _start_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(_START))
