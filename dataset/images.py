"""What an image's bytes say: its size, its digests, and the job inside."""

import base64
import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import google_crc32c
from PIL import Image, UnidentifiedImageError

from promptmill.producer.errors import PromptmillError
from promptmill.producer.exif import (
    A1111_KEYWORD,
    EXIF_IFD,
    IMAGE_DESCRIPTION,
    SOFTWARE,
    SOFTWARE_KEYWORD,
    UNICODE,
    USER_COMMENT,
)
from promptmill.producer.image_files import PNG_JOB_KEYWORD, has_credentials, in_memory
from promptmill.producer.image_formats import format_of, open_image
from promptmill.producer.marks import is_ai_made


class ImageError(PromptmillError):
    """Bytes that are not a whole image of promptmill's; the text says why."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """Of one image file. `crc32c` is base64 of the big-endian sum, as Cloud Storage writes it; `sha256` is hex."""

    bytes: int
    width: int
    height: int
    crc32c: str
    sha256: str
    record: Mapping[str, Any] = field(default_factory=dict)
    """The job's id and fields, and the worker's notes, as they lie in the file."""
    marks: tuple[str, ...] = ()
    """What says that a model made the image, as it lies in the file: xmp, watermark, c2pa."""

    @property
    def job_id(self) -> str | None:
        return self.record.get("id")

    @property
    def notes(self) -> Mapping[str, Any]:
        return self.record.get("notes", {})


def look_at(data: bytes, *, decode: bool = False) -> ImageFacts:
    """The facts of an image's bytes; with `decode`, its pixels are unpacked too, which finds damage inside.

    Raises ImageError.
    """
    if not data:
        raise ImageError("is empty")
    try:
        with open_image(data, Image.open) as image:
            width, height = image.size
            record = json.loads(texts_of(image).get(PNG_JOB_KEYWORD, "{}"))
            marks = _marks(image, data, record)
            kind = format_of(data)
            if kind is not None and not kind.container.is_whole(in_memory(data)):
                raise ImageError("is truncated: its end is missing")
            if decode:
                image.load()
    except UnidentifiedImageError as error:
        raise ImageError("is not an image, or cut within its first bytes") from error
    except (OSError, SyntaxError, ValueError, struct.error, EOFError, TypeError) as error:
        raise ImageError(f"is damaged: {error}") from error
    if not isinstance(record, dict):
        raise ImageError("has a record that is not promptmill's")
    return ImageFacts(len(data), width, height, crc32c(data), hashlib.sha256(data).hexdigest(), record, marks)


def texts_of(image: Image.Image) -> dict[str, str]:
    """What an image says of its job: the record under `promptmill`, A1111's lines under `parameters`, `Software`."""
    if image.format == "PNG":
        known = (PNG_JOB_KEYWORD, A1111_KEYWORD, SOFTWARE_KEYWORD)
        return {name: text for name, text in image.info.items() if name in known}
    exif = image.getexif()
    tags = {PNG_JOB_KEYWORD: IMAGE_DESCRIPTION, SOFTWARE_KEYWORD: SOFTWARE}
    found = {name: str(exif[tag]) for name, tag in tags.items() if tag in exif}
    comment = exif.get_ifd(EXIF_IFD).get(USER_COMMENT, b"")
    if comment.startswith(UNICODE):
        found[A1111_KEYWORD] = comment.removeprefix(UNICODE).decode("utf-16-be")
    return found


def xmp_of(image: Image.Image, data: bytes) -> bytes | None:
    """The image's XMP packet. Pillow's plugin for JPEG XL does not show it."""
    if (found := image.info.get("xmp")) is not None:
        return found if isinstance(found, bytes) else str(found).encode()
    return next((content for kind, content in _boxes(data) if kind == b"xml "), None)


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content; of pixels, which would be copied, no content."""
    kind = format_of(data)
    for box in kind.container.boxes(in_memory(data)) if kind else ():
        pixels = kind is not None and box.kind in kind.container.pixels
        yield box.kind, b"" if pixels else data[box.start : box.start + box.length]


def _marks(image: Image.Image, data: bytes, record: Any) -> tuple[str, ...]:
    notes = record.get("notes", {}) if isinstance(record, dict) else {}
    found = {
        "xmp": is_ai_made(xmp_of(image, data) or b""),
        "watermark": not str(notes.get("watermark", "none")).startswith("none"),
        "c2pa": any(has_credentials(*box) for box in _boxes(data)),
    }
    return tuple(name for name, there in found.items() if there)


def crc32c(data: bytes) -> str:
    """The sum as Cloud Storage writes it."""
    return base64.b64encode(struct.pack(">I", google_crc32c.value(data))).decode()
