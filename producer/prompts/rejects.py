"""Rows that were wrong: the first are kept to be listed, all go to a file of rows, each with why it is there.

{"_rejected": {"file": "a.csv", "line": 12, "field": "width", "problem": "..."}, "prompt": "a pear", "width": 65}

The file is a prompt file: its rows, mended, can be submitted as they stand. Of a row that could not be read there is
its text, within `_rejected`, and no field: it stays wrong until somebody writes them.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from promptmill.producer.errors import PlanError, PromptFileError
from promptmill.producer.prompts.columns import REJECTED
from promptmill.producer.spool import Pages

MOST_LISTED = 20
MOST_KEPT = 100_000
"""For `rejects.jsonl` in the output; a file of the user's own (--rejects) has them all."""


_STARTS = (b'{"_rejected": {"', b'{"file": ')  # the last of earlier versions


class Rejects:
    """Wrong rows of one run. `path` is the user's file; with `keep`, lines for the output are kept as well."""

    def __init__(self, path: Path | None = None, *, keep: bool = False) -> None:
        self.count = 0
        self.first: list[PromptFileError] = []
        """The first of each kind of fault; each names the lines of its like."""
        self._kinds: dict[tuple[str, str | None, str], PromptFileError] = {}
        self._kept = Pages() if keep else None
        self._file = _open(path) if path else None
        self._path = path or Path()

    def add(self, error: PromptFileError, row: Mapping[str, Any] | None = None) -> None:
        """`row` has its fields and labels, where it could be read."""
        self.count += 1
        self._list(error)
        if self._kept is None and self._file is None:
            return
        line = reject_line(error, row)
        if self._kept is not None and len(self._kept) < MOST_KEPT:
            self._kept.append(line)
        if self._file is not None:
            self._file.write(line.decode())

    def _list(self, error: PromptFileError) -> None:
        kind = error.path, error.field, error.problem
        if kind in self._kinds:
            self._kinds[kind].also(error.line)
        elif len(self.first) < MOST_LISTED:
            self.first.append(error)
            self._kinds[kind] = error

    @property
    def unlisted(self) -> int:
        """Rows that `first` does not tell of."""
        return self.count - sum(1 + error.others for error in self.first)

    def lines(self) -> Iterator[bytes]:
        """Those that are kept."""
        kept = self._kept
        return (kept[number] for number in range(len(kept))) if kept is not None else iter(())

    def end(self) -> None:
        """No more rows: the user's file is whole."""
        if self._file is not None and not self._file.closed:
            self._file.close()
            Path(self._file.name).replace(self._path)

    def close(self) -> None:
        self.end()
        if self._kept is not None:
            self._kept.close()


def reject_line(error: PromptFileError, row: Mapping[str, Any] | None) -> bytes:
    """A wrong row as a line of JSON; `row` has its fields and labels, where it could be read.

    What is no Unicode, such as half a surrogate pair, is escaped, and so is as wrong as it was.
    """
    why: dict[str, Any] = {"file": error.path, "line": error.line, "field": error.field, "problem": error.problem}
    row = error.row if error.row is not None else row
    if row is None and error.text is not None:
        why["text"] = error.text
    try:
        text = json.dumps({REJECTED: why, **(row or {})}, ensure_ascii=False, default=str) + "\n"
        return text.encode()
    except RecursionError:
        return f"{json.dumps({REJECTED: why})}\n".encode()
    except UnicodeEncodeError:
        return f"{json.dumps({REJECTED: why, **(row or {})}, default=str)}\n".encode()


def _open(path: Path) -> TextIO:
    """A file of rejects from before is written anew; anything else may be somebody's prompts. Raises PlanError.

    It is written beside its place: the one that is there may be read meanwhile, as a prompt file.
    """
    try:
        if path.exists() and (start := _start_of(path)) and not start.startswith(_STARTS):
            raise PlanError(f"{path} exists and is not a file of rejects: name another")
        return path.with_name(f"{path.name}.part").open("w", encoding="utf-8")
    except OSError as error:
        raise PlanError(f"{path}: {error.strerror}") from error


def _start_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(_STARTS[0]))
