"""Rows of a manifest's file by their indexes, without the rest of it in memory."""

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ROWS_HELD = 1000
"""Rows as Python objects at once."""


class Rows:
    """A manifest: its row N is that of index N. Use as a context manager."""

    def __init__(self, file: Any) -> None:
        """`file` is a path, or an open binary file that can seek."""
        self._parquet = pq.ParquetFile(file)

    def __len__(self) -> int:
        return int(self._parquet.metadata.num_rows)

    @property
    def schema(self) -> pa.Schema:
        """The columns."""
        return self._parquet.schema_arrow

    @property
    def groups(self) -> int:
        """How many row groups there are."""
        return int(self._parquet.num_row_groups)

    def group(self, number: int) -> list[dict[str, Any]]:
        """The rows of a row group."""
        rows: list[dict[str, Any]] = self._parquet.read_row_group(number).to_pylist()
        return rows

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Some columns of all rows, some thousand rows at a time."""
        yield from self._parquet.iter_batches(64 * ROWS_HELD, columns=columns)

    def between(self, first: int, end: int, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """The rows from `first` on, before `end`. Row groups without any of them are not read."""
        start = 0
        for group in range(self._parquet.num_row_groups):
            count = self._parquet.metadata.row_group(group).num_rows
            if start < end and start + count > first:
                yield from self._of_group(group, max(first - start, 0), min(end - start, count), columns)
            start += count

    def _of_group(self, group: int, first: int, end: int, columns: Sequence[str] | None) -> Iterator[dict[str, Any]]:
        at = 0
        for batch in self._parquet.iter_batches(ROWS_HELD, row_groups=[group], columns=columns):
            yield from batch.slice(max(first - at, 0), max(end - max(at, first), 0)).to_pylist()
            at += len(batch)
            if at >= end:
                return

    def __enter__(self) -> "Rows":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._parquet.close()
