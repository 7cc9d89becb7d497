"""A run's images on one sheet, each with its prompt: what one looks at first."""

import io
from itertools import islice
from typing import TYPE_CHECKING

from promptmill.producer.layout import image_name
from promptmill.producer.outputs.output import Output
from promptmill.producer.plan import Plan

if TYPE_CHECKING:
    from PIL import Image, ImageFont

NAME = "contact-sheet.png"
COLUMNS = 8
SIDE = 128  # pixels of an image, the longer side at most
MARGIN = 6  # pixels
LINES = 2  # of a prompt, under its image
LINE_HEIGHT = 13  # pixels
MOST = 256  # images: a sheet is for looking, and beyond this nobody looks


def write_contact_sheet(output: Output, plan: Plan, extension: str = "png") -> str:
    """Puts the sheet beside the run's images, which must all be there; its name in `output`, the run's own index.

    A run of more than MOST images shows its first. Raises OutputError.
    """
    shown = islice((job for job in plan if job.first), MOST)
    images = [(output.get(image_name(job.id, extension)), plan.whole(job).prompt) for job in shown]
    output.put_once(NAME, draw_sheet(images), content_type="image/png", ours=lambda existing: True)
    return NAME


def draw_sheet(images: list[tuple[bytes, str]]) -> bytes:
    """A PNG of image files with a text under each, in rows of COLUMNS."""
    from PIL import Image, ImageDraw, ImageFont

    cell_width, cell_height = SIDE + MARGIN, SIDE + LINES * LINE_HEIGHT + MARGIN
    rows = -(-len(images) // COLUMNS)
    columns = min(COLUMNS, len(images))
    sheet = Image.new("RGB", (columns * cell_width + MARGIN, rows * cell_height + MARGIN), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=10)
    for index, (data, text) in enumerate(images):
        left, top = (MARGIN + index % COLUMNS * cell_width, MARGIN + index // COLUMNS * cell_height)
        with Image.open(io.BytesIO(data)) as file:
            image = _fitted(file.convert("RGB"))
        sheet.paste(image, (left + (SIDE - image.width) // 2, top + (SIDE - image.height) // 2))
        for number, line in enumerate(wrap(text, font)):
            draw.text((left, top + SIDE + 1 + number * LINE_HEIGHT), line, "black", font)
    png = io.BytesIO()
    sheet.save(png, "PNG", optimize=True)
    return png.getvalue()


def _fitted(image: "Image.Image") -> "Image.Image":
    """Small images grow by whole pixels, so that one sees what was drawn; large ones shrink."""
    from PIL import Image

    scale = SIDE / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS)


def wrap(text: str, font: "ImageFont.ImageFont | ImageFont.FreeTypeFont") -> list[str]:
    """The text in at most LINES lines of an image's width; what does not fit ends in dots."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or font.getlength(longer) <= SIDE:
            lines[-1] = longer
        else:
            lines.append(word)
    cut = len(lines) > LINES
    lines = lines[:LINES]
    if cut:
        lines[-1] += " …"
    return [_clipped(line, font) for line in lines]


def _clipped(line: str, font: "ImageFont.ImageFont | ImageFont.FreeTypeFont") -> str:
    while font.getlength(line) > SIDE:
        line = f"{line.rstrip('…')[:-1]}…"
    return line
