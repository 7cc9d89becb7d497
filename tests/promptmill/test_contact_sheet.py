"""What lies on the sheet: every image once, in order, with its prompt under it."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFont

from promptmill.contact_sheet import COLUMNS, LINE_HEIGHT, LINES, MARGIN, SIDE, draw_sheet, wrap


def png(colour: tuple[int, int, int], size: tuple[int, int] = (64, 64)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def centre(sheet: np.ndarray, index: int) -> tuple[int, ...]:
    row, column = divmod(index, COLUMNS)
    y = MARGIN + row * (SIDE + LINES * LINE_HEIGHT + MARGIN) + SIDE // 2
    x = MARGIN + column * (SIDE + MARGIN) + SIDE // 2
    return tuple(sheet[y, x].tolist())


@pytest.mark.parametrize("size", [(64, 64), (1024, 512), (40, 300), (64, 2048)])
def test_each_image_has_its_place(size):
    colours = [(20 * n, 250 - 20 * n, 100) for n in range(11)]
    sheet = np.asarray(Image.open(io.BytesIO(draw_sheet([(png(colour, size), "p") for colour in colours]))))
    assert [centre(sheet, index) for index in range(11)] == colours
    assert centre(sheet, 11) == (255, 255, 255)


def test_the_prompt_stands_under_its_image():
    blank, written = (
        np.asarray(Image.open(io.BytesIO(draw_sheet([(png((9, 9, 9)), text)])))) for text in ("", "a cat")
    )
    differs = (blank != written).any(axis=-1)
    assert differs.any() and not differs[: MARGIN + SIDE].any()


@pytest.mark.parametrize("text", ["", "a cat", "word " * 50, "x" * 500, "a  b\nc", "猫 " * 100])
def test_a_prompt_takes_its_lines_and_no_more(text):
    font = ImageFont.load_default(size=10)
    lines = wrap(text, font)
    assert len(lines) <= LINES and all(font.getlength(line) <= SIDE for line in lines)
    if len(text) < 20:
        assert " ".join(lines) == " ".join(text.split())
    else:
        assert lines[-1].endswith("…")
