"""A run's images on one sheet, each with its prompt: what one looks at first."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from promptmill.producer.image_formats import ImageFormatError, open_image
from promptmill.producer.layout import CONTACT_SHEET
from promptmill.producer.outputs.output import ObjectNotFound, Output
from promptmill.producer.plan import Plan
from promptmill.producer.words import count

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

COLUMNS = 8
SIDE = 128  # pixels of an image, the longer side at most
MARGIN = 6  # pixels
LINES = 2  # of a prompt, under its image
LINE_HEIGHT = 13  # pixels
MOST = 256
"""Images: a sheet is for looking, and beyond this nobody looks."""

GREY = (200, 200, 200)


@dataclass(frozen=True)
class Sheet:
    """A PNG of `shown` images, of the `images` that there are."""

    png: bytes
    shown: int
    images: int

    @property
    def sentence(self) -> str:
        """What is on it."""
        if self.shown == self.images:
            return "all on one sheet"
        return f"{self.shown:,} of {count(self.images, 'image', commas=True)} on a sheet"


def make_sheet(
    output: Output, plan: Plan, indexes: Sequence[int], *, columns: int = COLUMNS, most: int = MOST
) -> Sheet:
    """The sheet of the images at these indexes of a run, evenly picked where they are more than `most`.

    `output` is the run's own. An image that cannot be read is a grey cell that says why. Raises OutputError.
    """
    picked = [indexes[number * len(indexes) // most] for number in range(most)] if len(indexes) > most else indexes
    cells = []
    for job in plan.at(picked):
        try:
            cells.append((output.get(plan.image_name(job.id)), plan.whole(job).prompt))
        except ObjectNotFound:
            cells.append((b"", plan.whole(job).prompt))
    return Sheet(draw_sheet(cells, columns), len(picked), len(indexes))


def write_sheet(output: Output, sheet: Sheet, name: str = CONTACT_SHEET) -> str:
    """Put the sheet beside the run's images, in the place of an older one; its URL. Raises OutputError."""
    output.put_once(name, sheet.png, content_type="image/png", broken=lambda existing: True)
    return f"{output.url}/{name}"


def numbered(name: str, page: int) -> str:
    """The name of one of many sheets: `contact-sheet-00000.png`."""
    stem, dot, suffix = name.rpartition(".")
    return f"{stem}-{page:05d}.{suffix}" if dot else f"{name}-{page:05d}"


def draw_sheet(cells: Sequence[tuple[bytes, str]], columns: int = COLUMNS) -> bytes:
    """A PNG of image files with a text under each, in rows of `columns`."""
    from PIL import Image, ImageDraw

    cell_width, cell_height = SIDE + MARGIN, SIDE + LINES * LINE_HEIGHT + MARGIN
    rows = -(-len(cells) // columns)
    width = min(columns, len(cells)) * cell_width + MARGIN
    sheet = Image.new("RGB", (width, rows * cell_height + MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (data, text) in enumerate(cells):
        left, top = MARGIN + index % columns * cell_width, MARGIN + index // columns * cell_height
        image = _read(data)
        sheet.paste(image, (left + (SIDE - image.width) // 2, top + (SIDE - image.height) // 2))
        _write(draw, left, top + SIDE + 1, text)
    png = io.BytesIO()
    sheet.save(png, "PNG", optimize=True)
    return png.getvalue()


def _read(data: bytes) -> "Image.Image":
    """The image, fitted into its cell; grey, with the reason, where it cannot be read."""
    from PIL import Image, ImageDraw

    try:
        with open_image(data, Image.open) as file:
            return _fitted(file.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, ImageFormatError) as error:
        grey = Image.new("RGB", (SIDE, SIDE), GREY)
        reason = "damaged" if data else "empty or gone"
        _write(ImageDraw.Draw(grey), MARGIN, SIDE // 2, f"{reason} ({type(error).__name__})")
        return grey


def _write(draw: "ImageDraw.ImageDraw", left: int, top: int, text: str) -> None:
    from promptmill.sheet_text import length, runs, wrap

    for number, line in enumerate(wrap(text, LINES, SIDE)):
        at = float(left)
        for piece, font in runs(line):
            draw.text((at, top + number * LINE_HEIGHT), piece, "black", font)
            at += length(piece)


def _fitted(image: "Image.Image") -> "Image.Image":
    """Small images grow by whole pixels, so that one sees what was drawn; large ones shrink."""
    from PIL import Image

    scale = SIDE / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS)
