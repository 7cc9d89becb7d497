"""The manifest as it lies in an output, read row group by row group."""

import math
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from promptmill.dataset.manifest import MANIFEST, SCHEMA, SCORE
from promptmill.dataset.rows import Rows
from promptmill.dataset.seal import PIECE_BYTES
from promptmill.producer.errors import PromptmillError
from promptmill.producer.outputs.output import ObjectNotFound, Output

ROWS_HELD = 1000
"""Rows as Python objects at once."""


NEEDED = ("index", "id", "state", "bytes", "crc32c", "sha256")
"""Columns of every version's manifest, by which images are known."""


class ManifestError(PromptmillError):
    """A manifest that cannot be read."""


class StoredManifest:
    """A copy of the manifest on this machine's disk, gone with it. Use as a context manager."""

    def __init__(self, output: Output) -> None:
        """Raises ObjectNotFound, ManifestError."""
        self._file = tempfile.TemporaryFile(prefix="promptmill-manifest-")  # noqa: SIM115
        try:
            at = 0
            while piece := output.read(MANIFEST, at, PIECE_BYTES):
                self._file.write(piece)
                at += len(piece)
            self._parquet = pq.ParquetFile(self._file)
            self._check_columns()
        except (pa.ArrowException, OSError, ValueError) as error:
            self._file.close()
            raise ManifestError(f"cannot be read: {error}") from error
        except BaseException:
            self._file.close()
            raise

    def _check_columns(self) -> None:
        there = self._parquet.schema_arrow
        for name in NEEDED:
            kind = there.field(name).type if name in there.names else None
            if kind != SCHEMA.field(name).type:
                found = "missing" if kind is None else str(kind)
                raise ManifestError(f"cannot be read: column {name} is {found}, expected {SCHEMA.field(name).type}")

    def indexed(self) -> Rows:
        """The same by ranges of indexes; not to be closed, and not to be used beside `rows`."""
        return Rows(self._file)

    @property
    def columns(self) -> list[str]:
        """Their names."""
        return list(self._parquet.schema_arrow.names)

    @property
    def jobs(self) -> int:
        return int(self._parquet.metadata.num_rows)

    def rows(self, columns: Sequence[str] | None = None, group: int | None = None) -> Iterator[dict[str, Any]]:
        """The rows in order, of one row group or all. Raises ManifestError."""
        groups = None if group is None else [group]
        try:
            for batch in self._parquet.iter_batches(ROWS_HELD, row_groups=groups, columns=columns):
                yield from batch.to_pylist()
        except (pa.ArrowException, OSError, ValueError) as error:
            raise ManifestError(f"cannot be read: {error}") from error

    def __enter__(self) -> "StoredManifest":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def scores_in(manifest: StoredManifest) -> dict[str, "array[float]"]:
    """The scores that are columns of a manifest, NaN where there is none. Raises ManifestError."""
    columns = [name for name in manifest.columns if name.startswith(SCORE)]
    scores = {name.removeprefix(SCORE): array("d") for name in columns}
    for row in manifest.rows(columns):
        for name in columns:
            scores[name.removeprefix(SCORE)].append(math.nan if row[name] is None else row[name])
    return scores


def open_manifest(output: Output) -> StoredManifest | None:
    """The output's manifest; None where there is none. Raises ManifestError."""
    try:
        return StoredManifest(output)
    except ObjectNotFound:
        return None
