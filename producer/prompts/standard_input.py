"""Streams without a name: what they hold is told from their beginning, which is then put back."""

import codecs
import io
import re
from typing import Any, BinaryIO, cast

MOST_BLANK = 1 << 20  # bytes, before the first character

_JSON = re.compile(rb'(\xef\xbb\xbf)?\s*\{\s*["}]')


def looks_like_json(head: bytes) -> bool:
    """Whether text begins as a JSON object does; `{red|blue} car` is a prompt."""
    return _JSON.match(head) is not None


def rewound(file: BinaryIO) -> tuple[bytes, BinaryIO]:
    """The beginning of a stream, and the stream as if it had not been read. Waits for two characters that show."""
    head = b""
    while len(b"".join(_without_mark(head).split())) < 2 and len(head) < MOST_BLANK:
        data = file.read1(io.DEFAULT_BUFFER_SIZE)  # type: ignore[attr-defined]
        if not data:
            break
        head += data
    return head, cast("BinaryIO", io.BufferedReader(_Rewound(head, file)))


def _without_mark(head: bytes) -> bytes:
    """Nothing, too, while the mark may still be on its way."""
    return b"" if codecs.BOM_UTF8.startswith(head) else head.removeprefix(codecs.BOM_UTF8)


class _Rewound(io.RawIOBase):
    def __init__(self, head: bytes, file: Any) -> None:
        self._head = head
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._head[: len(buffer)] or self._file.read1(len(buffer))
        self._head = self._head[len(data) :]
        buffer[: len(data)] = data
        return len(data)
