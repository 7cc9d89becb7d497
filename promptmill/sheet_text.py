"""Prompts under small images: wrapped by the character, in fonts that have the characters."""

import sys
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from PIL import ImageFont

SIZE = 10  # pixels
LONGEST = 2000  # characters of a prompt that are looked at; two lines hold some fifty

FOLDERS = {
    "darwin": ("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts"),
    "win32": (r"C:\Windows\Fonts",),
}.get(sys.platform, ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts"))

WIDE_FONTS = (
    "NotoSansCJK* NotoSansSC* NotoSansJP* wqy* DroidSansFallback* PingFang* Hiragino* msyh* DejaVuSans.ttf unifont*"
)
"""Fonts of many scripts, the best first: patterns of files' names."""

Font = ImageFont.FreeTypeFont


@cache
def fonts() -> tuple[Font, ...]:
    """Pillow's own font, and those of this machine that know other scripts."""
    own = ImageFont.load_default(size=SIZE)
    assert isinstance(own, Font)
    return (own, *_of_this_machine())


def _of_this_machine() -> Iterator[Font]:
    for pattern in WIDE_FONTS.split():
        found = (path for folder in FOLDERS for path in sorted(Path(folder).expanduser().rglob(pattern)))
        for path in found:
            try:
                yield ImageFont.truetype(str(path), SIZE)
                break  # one of a family is enough
            except OSError:
                continue


@cache
def font_of(char: str) -> Font | None:
    """The first font that has a glyph for the character, and draws no box."""
    return next((font for font in fonts() if bytes(font.getmask(char)) != _box(font)), None)


@cache
def _box(font: Font) -> bytes:
    return bytes(font.getmask("\U0010ffff"))


@cache
def written(char: str) -> str:
    """The character, or its name where no font of this machine has it: `[red apple]`, `[U+732B]`."""
    if unicodedata.category(char) in ("Cf", "Mn"):
        return ""  # joiners and variants of emoji have no glyph of their own
    if char.isspace() or font_of(char) is not None:
        return char
    name = unicodedata.name(char, "")
    return f"[{name.lower()}]" if name and unicodedata.category(char) == "So" else f"[U+{ord(char):04X}]"


@cache
def width(char: str) -> float:
    """Pixels."""
    font = font_of(char)
    return font.getlength(char) if font is not None else 0.0


def length(line: str) -> float:
    """Pixels, without kerning."""
    return sum(map(width, line))


def wrap(text: str, lines: int, pixels: int) -> list[str]:
    """The text in at most so many lines of so many pixels; long words are cut, and what does not fit ends in dots."""
    shown = " ".join("".join(map(written, text[:LONGEST])).split())
    found = [""]
    for word in shown.split(" "):
        for part in _parts(word, pixels):
            longer = f"{found[-1]} {part}" if found[-1] else part
            if length(longer) <= pixels:
                found[-1] = longer
            else:
                found.append(part)
        if len(found) > lines:
            return [*found[: lines - 1], _dotted(found[lines - 1], pixels)]
    return found if len(text) <= LONGEST else [*found[:-1], _dotted(found[-1], pixels)]


def _parts(word: str, pixels: int) -> Iterator[str]:
    """The word, or pieces of it that each fit a line."""
    begin, taken = 0, 0.0
    for at, char in enumerate(word):
        if taken + width(char) > pixels and at > begin:
            yield word[begin:at]
            begin, taken = at, 0.0
        taken += width(char)
    yield word[begin:]


def _dotted(line: str, pixels: int) -> str:
    while line and length(f"{line}…") > pixels:
        line = line[:-1]
    return f"{line.rstrip()}…"


def runs(line: str) -> Iterator[tuple[str, Font]]:
    """The line in pieces of one font each."""
    piece, font = "", fonts()[0]
    for char in line:
        its = font_of(char) or font
        if its is not font and piece:
            yield piece, font
            piece = ""
        piece, font = piece + char, its
    if piece:
        yield piece, font
