"""Files of images without their pixels: whose they are, and whether they are whole. Nothing is decoded.

All formats are boxes one behind the other: chunks of a PNG or a WebP, segments of a JPEG, boxes of a JPEG XL. One of
them holds the job's record as JSON: a text chunk of a PNG, EXIF elsewhere. A new format is a function that yields
boxes, one that knows a whole file, and a Container in its row of image_formats.py.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

HEAD_BYTES = 4096  # a page of a file system; the job's id comes within the first kilobyte

_TAIL_BYTES = 16
"""A file whose last bytes are all zero lost its end in a power cut."""

PNG_JOB_KEYWORD = "promptmill"
"""The text chunk of a PNG that holds its job as JSON, before the pixels."""

_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"\0\0\0\0IEND\xaeB`\x82"
_JPEG_END = b"\xff\xd9"
_JPEG_SCAN, _JPEG_APP1, _JPEG_APP11 = b"\xda", b"\xe1", b"\xeb"


class File:
    """Bytes that are read where they are asked for; the beginning is read once."""

    def __init__(self, size: int, read: Callable[[int, int], bytes]) -> None:
        self.size = size
        self._read = read
        self.head = read(0, HEAD_BYTES)

    def at(self, start: int, length: int) -> bytes:
        """So many bytes from there on, fewer at the end."""
        if start + length <= len(self.head) or len(self.head) >= self.size:
            return self.head[start : start + length]
        return self._read(start, min(length, self.size - start)) if start < self.size else b""

    @property
    def is_empty(self) -> bool:
        """Whether it begins with nothing but zeros: what some file systems leave of a file after a power cut."""
        return not self.head.strip(b"\0")

    @property
    def ends(self) -> bool:
        """Whether there is anything at the end."""
        return bool(self.at(max(self.size - _TAIL_BYTES, 0), _TAIL_BYTES).strip(b"\0"))


def in_memory(data: bytes) -> File:
    """The same of bytes that are here."""
    return File(len(data), lambda start, length: data[start : start + length])


class Box(NamedTuple):
    """A part of a file: where its content begins, and how long it says that it is."""

    kind: bytes
    start: int
    length: int


def _png_boxes(file: File) -> Iterator[Box]:
    """The chunks of a PNG, as far as they are there."""
    at = len(_PNG_START)
    while len(head := file.at(at, 8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        yield Box(kind, at + 8, length)
        at += 12 + length  # with the checksum


def _webp_boxes(file: File) -> Iterator[Box]:
    """The chunks of a WebP: developers.google.com/speed/webp/docs/riff_container."""
    at = 12
    while len(head := file.at(at, 8)) == 8:
        kind, length = struct.unpack("<4sI", head)
        yield Box(kind, at + 8, length)
        at += 8 + length + length % 2


def _jpeg_boxes(file: File) -> Iterator[Box]:
    """The segments of a JPEG up to its pixels: ITU-T T.81, annex B. The kind is the marker's second byte."""
    at = 2
    while len(head := file.at(at, 4)) == 4 and head[0] == 0xFF:
        (length,) = struct.unpack(">H", head[2:])
        yield Box(head[1:2], at + 4, length - 2)
        if head[1:2] == _JPEG_SCAN:
            return
        at += 2 + length


def _jxl_boxes(file: File) -> Iterator[Box]:
    """The boxes of a JPEG XL: ISO/IEC 18181-2. One of length 0 reaches to the end."""
    at = 0
    while len(head := file.at(at, 16)) >= 8:
        length, kind = struct.unpack_from(">I4s", head)
        size = 8
        if length == 1 and len(head) == 16:
            size, length = 16, struct.unpack_from(">Q", head, 8)[0]
        length = length or file.size - at
        yield Box(kind, at + size, length - size)
        at += max(length, size)


def _is_whole_png(file: File) -> bool:
    return file.at(max(file.size - len(_PNG_END), 0), len(_PNG_END)) == _PNG_END


def _is_whole_webp(file: File) -> bool:
    head = file.at(0, 8)
    return len(head) == 8 and struct.unpack("<4xI", head)[0] + 8 == file.size and file.ends


def _is_whole_jpeg(file: File) -> bool:
    return file.at(max(file.size - 2, 0), 2) == _JPEG_END


def _is_whole_jxl(file: File) -> bool:
    ends = [box.start + box.length for box in _jxl_boxes(file)]
    return bool(ends) and ends[-1] == file.size and file.ends


@dataclass(frozen=True)
class Container:
    """How files of a format begin, their boxes, and whether the end is there.

    `record` is the kind of the box with the job, and how its content begins; behind one of `pixels` none comes.
    """

    start: bytes
    boxes: Callable[[File], Iterator[Box]]
    is_whole: Callable[[File], bool]
    record: tuple[bytes, bytes]
    pixels: tuple[bytes, ...] = ()


PNG = Container(
    _PNG_START,
    _png_boxes,
    _is_whole_png,
    (b"iTXt", PNG_JOB_KEYWORD.encode() + b"\0"),
    (b"IDAT", b"IEND"),
)
WEBP = Container(b"RIFF", _webp_boxes, _is_whole_webp, (b"EXIF", b""))
JPEG = Container(b"\xff\xd8\xff", _jpeg_boxes, _is_whole_jpeg, (_JPEG_APP1, b"Exif\0"), (_JPEG_SCAN,))
JXL = Container(b"\0\0\0\x0cJXL \r\n\x87\n", _jxl_boxes, _is_whole_jxl, (b"Exif", b""))
"""A JPEG XL that is a bare codestream has no job inside."""


def has_credentials(kind: bytes, content: bytes) -> bool:
    """Whether a box of any format is C2PA's (C2PA 2.1, annex A)."""
    return kind in (b"caBX", b"C2PA") or (kind in (_JPEG_APP11, b"jumb") and b"c2pa" in content)
