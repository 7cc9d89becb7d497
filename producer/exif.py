"""Texts as EXIF: the few tags that hold them, written with the types that EXIF gives them.

Pillow writes a UserComment as a list of numbers, which piexif, and so A1111's web UI, does not take for a comment.
"""

import json
import struct
from collections.abc import Mapping

from promptmill.producer.image_files import PNG_JOB_KEYWORD

A1111_KEYWORD = "parameters"
"""The text of an image that holds its settings as A1111 writes them."""

SOFTWARE_KEYWORD = "Software"

IMAGE_DESCRIPTION, SOFTWARE, EXIF_IFD, USER_COMMENT = 0x010E, 0x0131, 0x8769, 0x9286
"""EXIF 2.32, tables 4 and 7."""

UNICODE = b"UNICODE\0"
"""EXIF 2.32: the character code before a UserComment; A1111 writes UTF-16, high byte first, after it."""

_PREFIX = b"Exif\0\0"
_HEADER = b"MM\0\x2a\0\0\0\x08"
"""TIFF, high byte first, its first directory at byte 8."""

_ASCII, _LONG, _UNDEFINED = 2, 4, 7


def exif_of_texts(texts: Mapping[str, str], most: int | None = None) -> bytes:
    """What an image says of its job, as EXIF: the record is the ImageDescription (JSON in ASCII), and A1111's lines are
    the UserComment, where A1111 puts and finds them. Where that is more than `most` bytes, the job's id alone."""
    tags = {}
    if PNG_JOB_KEYWORD in texts:
        tags[IMAGE_DESCRIPTION] = json.dumps(json.loads(texts[PNG_JOB_KEYWORD]))
    if SOFTWARE_KEYWORD in texts:
        tags[SOFTWARE] = texts[SOFTWARE_KEYWORD]
    exif = exif_of(tags, texts.get(A1111_KEYWORD))
    if most is not None and len(exif) > most:
        exif = exif_of({IMAGE_DESCRIPTION: json.dumps({"id": json.loads(texts[PNG_JOB_KEYWORD])["id"]})})
    return exif


def exif_of(texts: Mapping[int, str], comment: str | None = None) -> bytes:
    """EXIF with texts in ASCII by tag, and a UserComment."""
    entries = {tag: (_ASCII, text.encode("ascii") + b"\0") for tag, text in texts.items()}
    if comment is None:
        return _PREFIX + _HEADER + _directory(entries, len(_HEADER))
    inner = {USER_COMMENT: (_UNDEFINED, UNICODE + comment.encode("utf-16-be"))}
    first = _directory({**entries, EXIF_IFD: (_LONG, bytes(4))}, len(_HEADER))  # for its length
    at = len(_HEADER) + len(first)
    first = _directory({**entries, EXIF_IFD: (_LONG, struct.pack(">I", at))}, len(_HEADER))
    return _PREFIX + _HEADER + first + _directory(inner, at)


def _directory(entries: Mapping[int, tuple[int, bytes]], at: int) -> bytes:
    """A directory at a byte of the file, with its values behind it."""
    rows, values = b"", b""
    behind = at + 2 + 12 * len(entries) + 4
    for tag, (kind, value) in sorted(entries.items()):
        count = 1 if kind == _LONG else len(value)
        if len(value) <= 4:
            rows += struct.pack(">HHI4s", tag, kind, count, value)
            continue
        rows += struct.pack(">HHII", tag, kind, count, behind + len(values))
        values += value + bytes(len(value) % 2)
    return struct.pack(">H", len(entries)) + rows + bytes(4) + values
