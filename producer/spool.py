"""What does not fit into memory while a plan is made: files without a name, gone with the process however it ends."""

import os
import struct
import tempfile
from collections.abc import Iterator

from promptmill.producer.errors import PlanError

RECORDS_HELD = 1 << 16
"""Ids kept in memory before they go to the file: some three megabytes, at any number of jobs."""

_RECORD = struct.Struct("<16sQ")  # an id and a number
ID_BYTES = 16


class Pages:
    """Byte strings by their number, in a file. Any thread may read."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="promptmill-")  # noqa: SIM115
        self._ends = [0]

    def append(self, data: bytes) -> None:
        """Raises PlanError where there is no room."""
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            raise PlanError(f"{tempfile.gettempdir()}: {error.strerror}; TMPDIR names another folder") from error
        self._ends.append(self._ends[-1] + len(data))

    def __getitem__(self, number: int) -> bytes:
        start, end = self._ends[number], self._ends[number + 1]
        return os.pread(self._file.fileno(), end - start, start)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def close(self) -> None:
        self._file.close()


class Heaps:
    """Ids of 16 bytes, each with a number, in 256 heaps by their first byte: equal ids meet in one heap, in order.

    An id is a hash, so the heaps grow alike, and one heap of ten million ids fits into memory where all do not.
    """

    def __init__(self) -> None:
        self._pages = Pages()
        self._held = [bytearray() for _ in range(256)]
        self._count = 0
        self._flushed = 0

    def add(self, digest: bytes, number: int) -> None:
        """`digest` may be longer; its first 16 bytes are the id. `number` has 64 bits."""
        self._held[digest[0]] += _RECORD.pack(digest, number)
        self._count += 1
        if self._count - self._flushed >= RECORDS_HELD:
            self._flush()

    def __len__(self) -> int:
        return self._count

    def heap(self, first_byte: int) -> Iterator[tuple[bytes, int]]:
        """The ids of one heap and their numbers, in the order in which they came."""
        for page in range(first_byte, len(self._pages), 256):
            yield from _RECORD.iter_unpack(self._pages[page])
        yield from _RECORD.iter_unpack(bytes(self._held[first_byte]))

    def close(self) -> None:
        self._pages.close()

    def _flush(self) -> None:
        for held in self._held:
            self._pages.append(bytes(held))
            held.clear()
        self._flushed = self._count
