"""What the pocket model knows: the objects of `objects.txt`, ten background colours, and which pairs it never saw."""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

OBJECTS_FILE = Path(__file__).with_name("objects.txt")
HELD_OUT_EACH = 2

# Softened, so that a red apple is still seen on red.
BACKGROUNDS = {
    "red": (222, 72, 72),
    "orange": (245, 152, 56),
    "yellow": (250, 218, 84),
    "green": (98, 184, 98),
    "blue": (84, 142, 228),
    "purple": (150, 98, 202),
    "pink": (250, 170, 200),
    "white": (250, 250, 250),
    "black": (26, 26, 26),
    "gray": (150, 150, 150),
}


@dataclass(frozen=True)
class Thing:
    """One object: the emoji's short name, and (singular, plural) for each name that captions use, the best first."""

    emoji: str
    names: tuple[tuple[str, str], ...]


@cache
def things() -> tuple[Thing, ...]:
    """Every object, in the file's order."""
    lines = OBJECTS_FILE.read_text(encoding="utf-8").splitlines()
    return tuple(_thing(line) for line in lines if line and not line.startswith("#"))


def _thing(line: str) -> Thing:
    emoji, names = line.split(": ")
    return Thing(emoji, tuple(_name(name) for name in names.split(", ")))


def _name(text: str) -> tuple[str, str]:
    singular, _, plural = text.partition("/")
    return singular, plural or f"{singular}s"


@cache
def held_out() -> frozenset[tuple[str, str]]:
    """(emoji, background) pairs that training never shows: two of ten backgrounds for each object.

    Chosen by a hash of the names, so that they stay the same when an object is added or moved.
    """
    return frozenset(
        (thing.emoji, colour)
        for thing in things()
        for colour in sorted(BACKGROUNDS, key=lambda colour: _hash(thing.emoji, colour))[:HELD_OUT_EACH]
    )


def _hash(emoji: str, colour: str) -> str:
    return hashlib.sha256(f"{emoji}/{colour}".encode()).hexdigest()
