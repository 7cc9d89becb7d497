"""An object of an output as a file to read, of which only what is asked for is fetched."""

import io
from typing import Any

from promptmill.producer.outputs.output import ObjectNotFound, Output

BUFFER_BYTES = 8 << 20


def open_object(output: Output, name: str, size: int | None = None) -> io.BufferedReader:
    """The object as a file that can seek. Raises ObjectNotFound, OutputError."""
    return io.BufferedReader(_ObjectReader(output, name, _size(output, name) if size is None else size), BUFFER_BYTES)


def _size(output: Output, name: str) -> int:
    for listed in output.scan(name):
        if listed.name == name:
            return listed.size
    raise ObjectNotFound(f"there is no {output.url}/{name}")


class _ObjectReader(io.RawIOBase):
    def __init__(self, output: Output, name: str, size: int) -> None:
        self._output, self._name, self._size, self._at = output, name, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = self._output.read(self._name, self._at, len(buffer)) if self._at < self._size else b""
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
