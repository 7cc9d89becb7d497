"""What is compared of ids, and how the old tokenizer of transformers 4 reads a prompt before it cuts it up.

That one was written in Python and is gone from transformers 5. Its ids are stored in `references/`, a checksum a
string, because both versions cannot be installed together (`make_token_references.py`).
"""

import re
import unicodedata
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt32

STORED = Path(__file__).parent / "references" / "token_ids.npz"
NAMES = ("tokenizer", "tokenizer_2")
MARKS = ("<|startoftext|>", "<|endoftext|>")
_IDEOGRAPHS = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2CEAF), (0x2F800, 0x2FA1F))


def checksums(rows: Sequence[Sequence[int]] | np.ndarray) -> UInt32[np.ndarray, " T"]:
    """One number for each row of ids."""
    return np.array([zlib.crc32(np.asarray(row, "<u2").tobytes()) for row in rows], np.uint32)


def checksum_of_strings(strings: Sequence[str]) -> int:
    return zlib.crc32("\0\0".join(strings).encode())


def has_mark_in_capitals(text: str) -> bool:
    """Which tokenizer takes `<|EndOfText|>` for the mark, and where, is an accident of each."""
    lower = text.lower()
    return any(lower.count(mark) != text.count(mark) for mark in MARKS)


def as_slow_reads(text: str) -> str:
    """The text that gives the tokenizers of today the ids that the old one gave for `text`.

    The old one, where `ftfy` is not installed, drops U+FFFD and all that is invisible (joiners of emoji too), takes
    each ideograph for a word, and makes small letters as Python does (a sigma that ends a word is another letter).
    An iota below (U+0345) it loses by mistake.
    """
    kept = "".join(_as_slow_reads(letter) for letter in text)
    words = unicodedata.normalize("NFC", kept).replace("\u0345", " ").split()
    # That capital becomes two characters, which a second normalisation would put in another order.
    return "İ".join(part.lower() for part in " ".join(words).split("İ"))


def as_today(text: str) -> str:
    """What the tokenizers of today see alike. To Python alone the separators from 1c to 1f are blanks."""
    words = re.split(r"[^\S\x1c-\x1f]+", unicodedata.normalize("NFC", text))
    return " ".join(filter(None, words)).lower().replace("ς", "σ")


def _as_slow_reads(letter: str) -> str:
    if letter in "\t\n\r":
        return " "
    if letter == "\ufffd" or unicodedata.category(letter).startswith("C"):
        return ""
    if any(first <= ord(letter) <= last for first, last in _IDEOGRAPHS):
        return f" {letter} "
    return letter
