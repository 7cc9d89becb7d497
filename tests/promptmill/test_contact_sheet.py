"""What lies on the sheet: every image once, in order, with its prompt under it."""

import io

import numpy as np
import pytest
from PIL import Image

from promptmill import sheet_text
from promptmill.contact_sheet import COLUMNS, GREY, LINE_HEIGHT, LINES, MARGIN, SIDE, draw_sheet
from promptmill.sheet_text import font_of, length, wrap, written


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


@pytest.mark.parametrize(
    "text", ["", "a cat", "word " * 50, "x" * 500, "a  b\nc", "猫 " * 100, ",".join(["tag"] * 300), "x" * 100_000]
)
def test_a_prompt_takes_its_lines_and_no_more(text: str):
    lines = wrap(text, LINES, SIDE)
    assert len(lines) <= LINES and all(length(line) <= SIDE for line in lines)
    if len(text) < 20:
        assert " ".join(lines) == " ".join(text.split())
    else:
        assert lines[-1].endswith("…")


def test_few_characters_are_measured_however_long_the_words_are(monkeypatch: pytest.MonkeyPatch):
    """Sixty-four long prompts took minutes: each character of a line was cut off and the rest measured anew."""
    measured: list[str] = []

    def width(char: str) -> float:
        measured.append(char)
        return 6.0

    monkeypatch.setattr(sheet_text, "width", width)
    wrap("x" * 9_999, LINES, SIDE)
    assert len(measured) < 10 * sheet_text.LONGEST


@pytest.mark.parametrize("char", ["猫", "🍎", "ж", "é", "あ", "한", "\U0001f9d1"])
def test_no_character_is_drawn_as_a_box(char: str):
    """What no font of this machine has is written as its name."""
    shown = written(char)
    assert shown and all(font_of(one) is not None for one in shown)


def test_joiners_of_emoji_are_not_spelt_out():
    assert written("\u200d") == "" and written("\ufe0f") == ""


@pytest.mark.parametrize("data", [b"", b"no image", png((9, 9, 9))[:60]])
def test_an_image_that_cannot_be_read_is_a_grey_cell_beside_the_others(data: bytes):
    sheet = np.asarray(Image.open(io.BytesIO(draw_sheet([(png((1, 2, 3)), "a"), (data, "b"), (png((4, 5, 6)), "c")]))))
    assert centre(sheet, 0) == (1, 2, 3) and centre(sheet, 2) == (4, 5, 6)
    assert tuple(sheet[MARGIN + 3, MARGIN + SIDE + MARGIN + 3]) == GREY
