"""What an image's bytes say: its size, its digests, and the job inside."""

import base64
import hashlib
import io
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import google_crc32c
from PIL import Image, UnidentifiedImageError

from promptmill.producer.errors import PromptmillError
from promptmill.producer.marks import is_ai_made

PNG_END = b"IEND\xaeB`\x82"
C2PA_CHUNK = b"caBX"
RECORD = "promptmill"  # the text chunk that worker/encode.py writes


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
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            record = json.loads(image.info.get(RECORD, "{}"))
            marks = _marks(image, record)
            if image.format == "PNG" and not data.endswith(PNG_END):
                raise ImageError("is cut: its end is missing")
            if decode:
                image.load()
    except UnidentifiedImageError as error:
        raise ImageError("is not an image, or cut within its first bytes") from error
    except (OSError, SyntaxError, ValueError, struct.error, EOFError) as error:
        raise ImageError(f"is damaged: {error}") from error
    if not isinstance(record, dict):
        raise ImageError("has a record that is not promptmill's")
    return ImageFacts(len(data), width, height, crc32c(data), hashlib.sha256(data).hexdigest(), record, marks)


def _marks(image: Image.Image, record: Any) -> tuple[str, ...]:
    notes = record.get("notes", {}) if isinstance(record, dict) else {}
    found = {
        "xmp": is_ai_made(image.info.get("xmp", b"")),
        "watermark": not str(notes.get("watermark", "none")).startswith("none"),
        "c2pa": any(chunk[0] == C2PA_CHUNK for chunk in getattr(image, "private_chunks", ())),
    }
    return tuple(name for name, there in found.items() if there)


def crc32c(data: bytes) -> str:
    """The sum as Cloud Storage writes it."""
    return base64.b64encode(struct.pack(">I", google_crc32c.value(data))).decode()
