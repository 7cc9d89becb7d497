"""Records of CSV and TSV, which may have several lines, and where a quote went wrong."""

import csv
from collections import deque
from collections.abc import Iterator
from typing import BinaryIO

from promptmill.producer.errors import PromptFileError
from promptmill.producer.prompts.lines import byte_lines, not_utf8

LONGEST_CELL = 1 << 20  # characters; Python's own limit is an eighth


class Records:
    """The records of a table that are not blank, or what is wrong with one.

    A quote that is not closed where its cell ends would swallow lines: of such a record only the first line is given
    up, and the next one is read anew. Many a TSV has quotes that are text: there such a line is taken as it stands,
    where it has `width` cells so.
    """

    def __init__(self, name: str, file: BinaryIO, delimiter: str) -> None:
        csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CELL))
        self._lines = _Lines(name, file)
        self._name = name
        self._delimiter = delimiter
        self.width: int | None = None
        self._reader = csv.reader(self._lines, delimiter=delimiter, strict=True)

    @property
    def line(self) -> int:
        """Where the record begins."""
        return self._lines.held[0][0]

    @property
    def last(self) -> int:
        """Where it ends."""
        return self._lines.held[-1][0]

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(line for _, line in self._lines.held).rstrip("\r\n")

    def __iter__(self) -> Iterator[list[str] | PromptFileError]:
        lines = self._lines
        while True:
            lines.held.clear()
            try:
                cells = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield self._as_it_stands() or self._unbalanced(error)
                lines.again()
                continue
            if lines.wrong:
                yield lines.wrong.popleft()
                lines.wrong.clear()
            elif cells and (cells[0].strip() or any(cell.strip() for cell in cells)):
                yield cells

    def split_by(self, delimiter: str) -> list[str]:
        """The record under way, by another delimiter; so are those that come."""
        self._delimiter = delimiter
        self._reader = csv.reader(self._lines, delimiter=delimiter, strict=True)
        return next(csv.reader([self.text], delimiter=delimiter))

    def _as_it_stands(self) -> list[str] | None:
        """The cells of a TSV's line whose quotes are text, or None."""
        line = self._lines.held[0][1].rstrip("\r\n")
        cells = line.split("\t")
        if self._delimiter != "\t" or len(cells) != self.width or not _is_unicode(line):
            return None
        self._lines.wrong.clear()
        return cells

    def _unbalanced(self, error: csv.Error) -> PromptFileError:
        self._lines.wrong.clear()
        text = str(error)
        if "unexpected end" in text or "field limit" in text:
            problem = 'has a " that is never closed'
        elif "new-line character" in text:
            problem = "has a carriage return within; lines must end as on Unix or on Windows"
        else:
            problem = f'has a " that is not closed where its cell ends, at line {self.last}; within a cell write ""'
        return PromptFileError(self._name, self.line, None, problem, self._lines.held[0][1].rstrip("\r\n"))


def _is_unicode(line: str) -> bool:
    try:
        line.encode()
    except UnicodeEncodeError:  # it was not UTF-8
        return False
    return True


class _Lines:
    """Lines for Python's csv. Those of the record under way are `held`, with their numbers."""

    def __init__(self, name: str, file: BinaryIO) -> None:
        self.held: list[tuple[int, str]] = []
        self.wrong: deque[PromptFileError] = deque()
        self._name = name
        self._new = enumerate(byte_lines(name, file), start=1)
        self._again: deque[tuple[int, bytes]] = deque()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        number, raw = self._again.popleft() if self._again else next(self._new)
        try:
            line = raw.decode()
        except UnicodeDecodeError as error:
            line = raw.decode(errors="surrogateescape")
            self.wrong.append(not_utf8(self._name, number, error))
        self.held.append((number, line))
        return line

    def again(self) -> None:
        """All lines held but the first are to be read once more."""
        self._again.extendleft((number, line.encode(errors="surrogateescape")) for number, line in self.held[:0:-1])
