"""Thumbnails, a hundred to a WebP: one request and one decoded image for a screenful of them."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from promptmill.dataset.images import texts_of
from promptmill.producer.image_files import PNG_JOB_KEYWORD
from promptmill.producer.image_formats import ImageFormatError, open_image

SIDE = 128
"""Pixels of a thumbnail's longer side."""

COLUMNS = 10
SPRITE_ROWS = 100
"""Indexes per sprite: 1280x1280 pixels, 6.5 MB when decoded."""

_WEBP = {"quality": 75, "method": 4}


@dataclass(frozen=True)
class Thumbnail:
    """A small copy of an image, or the reason why there is none; `notes` are the worker's, from inside the file."""

    image: Image.Image | None
    problem: str = ""
    notes: Mapping[str, Any] = field(default_factory=dict)


def thumbnail(data: bytes) -> Thumbnail:
    """The thumbnail of an image's file. Small images grow, so that all fill their place."""
    try:
        with open_image(data, Image.open) as image:
            record = json.loads(texts_of(image).get(PNG_JOB_KEYWORD, "{}"))
            notes = record.get("notes", {}) if isinstance(record, dict) else {}
            return Thumbnail(_fitted(image.convert("RGB")), notes=notes)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError, ImageFormatError) as error:
        return Thumbnail(None, f"cannot be read: {error}")


def fitted_size(width: int, height: int) -> tuple[int, int]:
    """Width and height of a thumbnail. page/sprites.js computes the same."""
    longer = max(width, height)
    return max(1, (2 * SIDE * width + longer) // (2 * longer)), max(1, (2 * SIDE * height + longer) // (2 * longer))


def _fitted(image: Image.Image) -> Image.Image:
    size = fitted_size(*image.size)
    grows = size[0] > image.width
    return image.resize(size, Image.Resampling.NEAREST if grows else Image.Resampling.LANCZOS, reducing_gap=3.0)


def draw_sprite(thumbnails: Sequence[Thumbnail]) -> bytes:
    """A WebP with each thumbnail at the upper left of its square; the same bytes for the same images."""
    sheet = Image.new("RGB", (COLUMNS * SIDE, -(-len(thumbnails) // COLUMNS) * SIDE), (128, 128, 128))
    for at, one in enumerate(thumbnails):
        if one.image is not None:
            sheet.paste(one.image, (at % COLUMNS * SIDE, at // COLUMNS * SIDE))
    file = io.BytesIO()
    sheet.save(file, "WEBP", **_WEBP)
    return file.getvalue()
