"""Excel's workbooks (.xlsx): the first sheet or the one that is named, row by row, with openpyxl in its reading mode.

Lines are the sheet's own row numbers. A sheet has traps that a CSV has not: text that Excel took for a date or a
number, formulas that failed, whole numbers as floats.
"""

import datetime
import json
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from shutil import copyfileobj
from typing import Any, BinaryIO

from promptmill.producer.errors import JobError, PromptFileError
from promptmill.producer.prompts.columns import (
    TEXTS,
    Columns,
    Reading,
    Row,
    cell_converter,
    columns_of_table,
    shown_name,
)
from promptmill.producer.prompts.sources import one_line
from promptmill.producer.words import count

FAILED = ("#N/A", "#REF!", "#DIV/0!", "#VALUE!", "#NAME?", "#NUM!", "#NULL!", "#SPILL!", "#CALC!")
"""What a formula shows that has no value."""

SHOWN_SHEETS = 10

Cells = Sequence[Any]


def read_xlsx(name: str, file: BinaryIO, reading: Reading) -> Iterator[Row | PromptFileError]:
    """The rows of a sheet; its first row that is not empty names the columns."""
    try:
        import openpyxl
    except ModuleNotFoundError as error:
        raise PromptFileError(name, 0, None, "Excel files need openpyxl: pip install 'promptmill[xlsx]'") from error
    with tempfile.TemporaryFile() as copy:
        if not file.seekable():  # packed, or a pipe; a zip's table of contents stands at its end
            copyfileobj(file, copy)
            file = copy
        try:
            book = openpyxl.load_workbook(file, read_only=True, data_only=True)
            sheet = _sheet(name, book, reading)
            sheet.reset_dimensions()  # other programs write wrong ones
            lines = enumerate(sheet.iter_rows(values_only=True), start=1)
            yield from _rows(name, lines, reading)
        except (PromptFileError, OSError):
            raise
        except Exception as error:  # openpyxl and zipfile raise what they come upon: damage has no end of kinds
            raise PromptFileError(name, 0, None, f"is not an Excel workbook (.xlsx): {one_line(error)}") from error


def _sheet(name: str, book: Any, reading: Reading) -> Any:
    """The sheet that was named, else the first; the others are told. Raises PromptFileError."""
    titles = [sheet.title for sheet in book.worksheets]
    if reading.sheet is None:
        if others := titles[1:]:
            shown = ", ".join(map(repr, others[:SHOWN_SHEETS])) + (", ..." if len(others) > SHOWN_SHEETS else "")
            reading.note(f"{name}: only the sheet {titles[0]!r} is read, not {shown} (--sheet NAME)")
        return book.worksheets[0]
    if reading.sheet not in titles:
        raise PromptFileError(name, 0, None, f"has no sheet {reading.sheet!r}: {', '.join(map(repr, titles))}")
    return book[reading.sheet]


def _rows(name: str, lines: Iterator[tuple[int, Cells]], reading: Reading) -> Iterator[Row | PromptFileError]:
    columns: Columns | None = None
    for line, cells in lines:
        cells = _without_end(cells)
        if not cells:
            continue
        if columns is None:
            columns = _header(name, line, cells, reading)
        else:
            yield _row(name, line, columns, cells)


def _without_end(cells: Cells) -> Cells:
    """A row up to its last cell that holds something."""
    end = len(cells)
    while end and (cells[end - 1] is None or (isinstance(cells[end - 1], str) and not cells[end - 1].strip())):
        end -= 1
    return cells[:end]


def _header(name: str, line: int, cells: Cells, reading: Reading) -> Columns:
    names = ["" if cell is None else str(cell) for cell in cells]
    try:
        return columns_of_table(names, reading, lambda field, column: partial(_value, field, shown_name(column)))
    except JobError as error:
        raise PromptFileError(name, line, error.field, error.problem) from error


def _row(name: str, line: int, columns: Columns, cells: Cells) -> Row | PromptFileError:
    given = dict(zip(columns.names, cells, strict=False))
    row = {column: cell for column, cell in given.items() if column and cell is not None}
    if len(cells) > len(columns.names):
        problem = f"has {count(len(cells), 'cell')}, but the header has {len(columns.names)}"
        return PromptFileError(name, line, None, problem, json.dumps(cells, ensure_ascii=False, default=str))
    try:
        return Row(line, *columns.split([*cells, *[None] * (len(columns.names) - len(cells))]))
    except JobError as error:
        return PromptFileError(name, line, error.field, error.problem, None, row)


def _value(field: str, column: str, value: Any) -> Any:
    """A cell as JSON has it. Raises JobError for what is not what somebody typed."""
    if value is None:
        return None
    if isinstance(value, str):
        if value in FAILED:
            raise JobError(column, f"is {value}: a formula of the sheet has no value")
        return cell_converter(field)(_unescaped(value))
    if isinstance(value, datetime.date | datetime.time | datetime.timedelta):
        return _date(field, column, value)
    if field in TEXTS and type(value) is int:
        return str(value)
    return value


def _date(field: str, column: str, value: Any) -> str:
    """A date is a label as ISO 8601 writes it; as a field it is a mistake of the sheet's."""
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        value = value.date()
    text = str(value) if isinstance(value, datetime.timedelta) else value.isoformat()
    if field:
        raise JobError(
            column, f"is a date in the sheet ({text}), as Excel makes of text such as 1-2: format it as text"
        )
    return text


def _unescaped(text: str) -> str:
    """Excel writes control characters as `_x000D_`, and the line ends of Windows so."""
    if "_x" not in text:
        return text
    from openpyxl.utils.escape import unescape

    plain: str = unescape(text)
    return plain.replace("\r\n", "\n")
