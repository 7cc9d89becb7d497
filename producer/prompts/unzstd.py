"""Zstandard, unpacked as it is read."""

import io
from typing import Any, BinaryIO, cast

import zstandard

PACKED = 1 << 8  # bytes unpacked at once; a block of them may hold 128 KiB, whatever its four bytes are


def unzstd(file: BinaryIO) -> BinaryIO:
    """The bytes of all frames of a file. Reading raises EOFError where one is cut, zstandard.ZstdError for no frame."""
    return cast("BinaryIO", io.BufferedReader(_Unzstd(file)))


class _Unzstd(io.RawIOBase):
    """The library's own reader ends silently where a frame is cut."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._frame: Any = None
        self._packed = b""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            self._packed = self._packed or self._file.read(PACKED)
            if not self._packed:
                return self._end()
            self._unpack()
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _unpack(self) -> None:
        if self._frame is None:
            self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._ready = memoryview(self._frame.decompress(self._packed))
        self._packed = b""
        if self._frame.eof:
            self._packed, self._frame = self._frame.unused_data, None

    def _end(self) -> int:
        if self._frame is not None:
            raise EOFError("the zstd stream is cut")
        return 0
