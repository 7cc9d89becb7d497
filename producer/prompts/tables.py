"""Tables of prompts: CSV, TSV, Parquet, and datasets of the Hugging Face hub."""

import datetime
import importlib.util
import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import partial
from shutil import copyfileobj
from types import MappingProxyType
from typing import Any, BinaryIO

from promptmill.producer.errors import JobError, PromptFileError
from promptmill.producer.prompts.columns import (
    NAMES,
    WHOLE,
    Columns,
    Converters,
    Reading,
    Row,
    cell_converter,
    columns_of_table,
    with_prompt,
)
from promptmill.producer.prompts.records import Records
from promptmill.producer.prompts.sources import HUB, one_line
from promptmill.producer.words import count

BATCH = 1000  # rows of a Parquet file in memory
_READ_BYTES = 1 << 20  # of a column of a Parquet file

OTHER_DELIMITERS = (";", "\t")

_JSON_TYPES = (str, int, bool, type(None))


def read_csv(name: str, file: BinaryIO, reading: Reading) -> Iterator[Row | PromptFileError]:
    """RFC 4180: commas, `"` around what has commas or line ends. The first row names the columns.

    Where it has none, but semicolons or tabs, those separate: Excel writes them where a comma is the decimal point.
    """
    return _separated(name, file, reading, ",")


def read_tsv(name: str, file: BinaryIO, reading: Reading) -> Iterator[Row | PromptFileError]:
    """As CSV, with tabs."""
    return _separated(name, file, reading, "\t")


def _separated(name: str, file: BinaryIO, reading: Reading, delimiter: str) -> Iterator[Row | PromptFileError]:
    records = Records(name, file, delimiter)
    columns: Columns | None = None
    for record in records:
        if columns is not None:
            yield record if isinstance(record, PromptFileError) else _row(name, records, columns, record)
        elif isinstance(record, PromptFileError):
            raise record
        else:
            other = next((each for each in OTHER_DELIMITERS if len(record) == 1 and each in record[0]), None)
            record = records.split_by(other) if other and delimiter == "," else record
            columns = _columns(name, records.line, record, reading, cell_converter)
            records.width = len(record)


def _columns(name: str, line: int, names: Sequence[str], reading: Reading, converters: Converters) -> Columns:
    """What is wrong with the header is wrong with the whole file."""
    try:
        return columns_of_table(names, reading, converters)
    except JobError as error:
        raise PromptFileError(name, line, error.field, error.problem) from error


def _row(name: str, records: Records, columns: Columns, cells: list[str]) -> Row | PromptFileError:
    line = records.line
    if len(cells) != len(columns.names):
        to = f"; its quotes run to line {records.last}" if records.last > line else ""
        problem = f"has {count(len(cells), 'cell')}, but the header has {len(columns.names)}{to}"
        return PromptFileError(name, line, None, problem, records.text)
    try:
        return Row(line, *columns.split(cells))
    except JobError as error:
        return PromptFileError(name, line, error.field, error.problem, records.text, _as_row(columns, cells))


def _as_row(columns: Columns, cells: list[str]) -> dict[str, Any]:
    """The cells under the names of their columns, for a file of rejects."""
    given = zip(columns.names, cells, strict=True)
    return {name: cell_converter(name if name in NAMES else "")(cell) for name, cell in given if name and cell}


def read_parquet(name: str, file: BinaryIO, reading: Reading) -> Iterator[Row | PromptFileError]:
    """Lines count rows, from 1. Columns of bytes, such as images, are left out."""
    try:
        import pyarrow
    except ModuleNotFoundError as error:
        raise PromptFileError(name, 0, None, "Parquet needs pyarrow: pip install 'promptmill[parquet]'") from error
    with tempfile.TemporaryFile() as copy:
        if not file.seekable():  # a pipe, or packed; its table of contents stands at its end
            copyfileobj(file, copy)
            file = copy
        try:
            yield from _parquet_rows(name, file, reading)
        except (pyarrow.ArrowException, UnicodeDecodeError) as error:  # the latter of a column's name
            raise PromptFileError(name, 0, None, f"is not Parquet: {one_line(error)}") from error


def _parquet_rows(name: str, file: BinaryIO, reading: Reading) -> Iterator[Row | PromptFileError]:
    import pyarrow.parquet

    table = pyarrow.parquet.ParquetFile(file, buffer_size=_READ_BYTES)
    reading = with_prompt(table.schema_arrow.names, reading)
    converters = partial(_converter, exact=_exact_wholes(table.schema_arrow))
    columns = _columns(name, 0, table.schema_arrow.names, reading, converters)
    wanted = {*reading.columns.values(), *NAMES}
    leaves = [leaf.path for leaf in map(table.schema.column, range(len(table.schema))) if not _is_bytes(leaf, wanted)]
    kept = {path.partition(".")[0] for path in leaves} | set(leaves)
    columns = Columns([column if column in kept else "" for column in columns.names], reading, converters)
    batches = table.iter_batches(BATCH, columns=leaves)
    rows = itertools.chain.from_iterable(map(_python_rows, batches))
    yield from _values(name, columns, rows)


def _is_bytes(leaf: Any, wanted: set[str]) -> bool:
    return leaf.physical_type.endswith("BYTE_ARRAY") and leaf.logical_type.type == "NONE" and leaf.path not in wanted


def _python_rows(batch: Any) -> Iterator[dict[str, Any] | str]:
    """Rows, or what is wrong with one: a date after the year 9999, text that is no UTF-8."""
    try:
        yield from batch.to_pylist()
        return
    except (ValueError, LookupError, ArithmeticError, TypeError, OSError):
        pass
    for index in range(batch.num_rows):
        try:
            yield from batch.slice(index, 1).to_pylist()
        except (ValueError, LookupError, ArithmeticError, TypeError, OSError) as error:
            yield f"has a value that cannot be read: {one_line(error)}"


def read_hub(name: str, file: BinaryIO, reading: Reading) -> Iterator[Row | PromptFileError]:
    """`hf://owner/name[/config][?split=train]`, row by row as they come."""
    if not importlib.util.find_spec("datasets"):
        raise PromptFileError(name, 0, None, "the hub's datasets need a library: pip install datasets")
    try:
        rows = iter(_dataset(name))
        first: Mapping[str, Any] = next(rows, {})
        columns = _columns(name, 0, list(first), reading, _converter)
        yield from _values(name, columns, itertools.chain([first], rows))
    except PromptFileError:
        raise
    except Exception as error:  # whatever the library and the network raise
        raise PromptFileError(name, 0, None, f"cannot be read: {one_line(error)}") from error


def _dataset(name: str) -> Any:
    import datasets

    path, _, query = name.removeprefix(HUB).partition("?")
    owner, _, rest = path.partition("/")
    dataset, _, config = rest.partition("/")
    split = query.removeprefix("split=") or "train"
    rows = datasets.load_dataset(f"{owner}/{dataset}", config or None, split=split, streaming=True)
    return rows.decode(False) if hasattr(rows, "decode") else rows  # images stay packed


def _values(name: str, columns: Columns, rows: Iterator[Mapping[str, Any] | str]) -> Iterator[Row | PromptFileError]:
    for number, row in enumerate(rows, start=1):
        if isinstance(row, str):
            yield PromptFileError(name, number, None, row)
            continue
        try:
            given, labels = columns.split([row.get(column) for column in columns.names])
            if given or labels:
                yield Row(number, given, labels)
        except JobError as error:
            yield PromptFileError(name, number, error.field, error.problem)


def _exact_wholes(schema: Any) -> dict[str, int]:
    """Of columns of short floats, the last whole number that no other one is rounded to."""
    bits = {"halffloat": 11, "float": 24}  # of the mantissa (IEEE 754); a double's rounding is found by the job
    return {field.name: 2 ** bits[str(field.type)] - 1 for field in schema if str(field.type) in bits}


def _converter(name: str, column: str, exact: Mapping[str, int] = MappingProxyType({})) -> Callable[[Any], Any]:
    if not name:
        return _plain
    return partial(_field_value, name, exact.get(column) if name in WHOLE else None)


def _field_value(name: str, exact: int | None, value: Any) -> Any:
    """Old writers of Parquet call text bytes; and a short float may have been another number."""
    if exact is not None and value is not None and abs(value) > exact:
        raise JobError(name, f"must be written as a whole number: {value:.0f} is a float of a kind that rounds it")
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if type(value) is bytes:
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise JobError(name, f"is not UTF-8 at byte {error.start + 1}") from error
    return _plain(value)


def _plain(value: Any) -> Any:
    """A value as JSON has it; None for bytes, and for a number that is none, which is how pandas says nothing."""
    if type(value) in _JSON_TYPES:
        return value
    if isinstance(value, float):
        return value if value == value else None
    if isinstance(value, bytes):
        return None
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items() if not isinstance(item, bytes)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return str(value)
