"""How many tokens of CLIP a text is: counted by a model's own merges where they are at hand, else estimated.

The pieces of a text are those of CLIP's tokenizer (openai/CLIP, simple_tokenizer.py): words, digits one by one, runs of
other characters. Each piece is then merged from its bytes (Sennrich et al. 2016, arXiv 1508.07909).
"""

import os
import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from promptmill.producer.models import POCKET, POCKET_FOLDER, is_hub_id

CountTokens = Callable[[str], int]
"""The tokens of a text, the marks at both ends of a window left out."""

_PIECES = re.compile(r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|(?:[^\s\w]|_)+")
_MARKS = ("<|startoftext|>", "<|endoftext|>")
_END = "</w>"
MOST_WORDS = 1 << 16  # whose counts are kept
MERGES = "merges.txt"


def counter(tokenizer: Path) -> CountTokens:
    """Counts as the tokenizer in this folder does. Raises OSError and ValueError where it has no sound merges.txt."""
    lines = (tokenizer / MERGES).read_text(encoding="utf-8").splitlines()
    merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    if not merges or any(len(pair) != 2 for pair in merges):
        raise ValueError(f"{tokenizer}/{MERGES}: expected two symbols on each line")
    ranks = {pair: rank for rank, pair in enumerate(merges)}

    return _by_words(lambda piece: 1 if piece in _MARKS else len(_merged(piece, ranks)))


def _by_words(count_piece: CountTokens) -> CountTokens:
    """Counts the pieces of a text; what stands between two spaces is looked at once for all texts."""

    kept = lru_cache(MOST_WORDS)(count_piece)

    @lru_cache(MOST_WORDS)
    def count_word(word: str) -> int:
        return sum(map(kept, _PIECES.findall(unicodedata.normalize("NFC", word).lower())))

    return lambda text: sum(map(count_word, text.split()))


def _merged(piece: str, ranks: dict[tuple[str, ...], int]) -> list[str]:
    symbols = [_SYMBOLS[byte] for byte in piece.encode()]
    symbols[-1] += _END
    while len(symbols) > 1:
        best = min(pairwise(symbols), key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        symbols = _joined(symbols, best)
    return symbols


def _joined(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    """The symbols with each occurrence of the pair made one, from the left."""
    joined: list[str] = []
    at = 0
    while at < len(symbols):
        found = symbols[at] == pair[0] and symbols[at + 1 : at + 2] == [pair[1]]
        joined.append(pair[0] + pair[1] if found else symbols[at])
        at += 2 if found else 1
    return joined


def _byte_symbols() -> list[str]:
    """A character that shows for each byte, as GPT-2's tokenizer has them: itself, or one from U+0100 on."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in shown else chr(next(others)) for byte in range(256)]


_SYMBOLS = _byte_symbols()


def _estimate_piece(piece: str) -> int:
    if piece in _MARKS:
        return 1
    if not piece[0].isalpha():
        return len(piece.encode())
    if piece.isascii():
        return 1 + max(0, -(-(len(piece) - SHORT_WORD) // MORE_PER))
    return 2 * len(piece) + sum(char >= _EAST_ASIAN for char in piece)


estimate = _by_words(_estimate_piece)
"""The tokens of a text by CLIP's own vocabulary, without having it: too many rather than too few.

Measured with open_clip's table of merges: of 4,601 texts of 76 to 100 tokens, made of prompts and of tags, all come out
at more than 75; of those of 50 to 75 tokens half do.
"""

SHORT_WORD = 5  # letters that are surely one token
MORE_PER = 4  # letters beyond those, for each further one
_EAST_ASIAN = "\u2e80"  # from here on a character may be three tokens, before it two


def tokenizer_folder(model: str) -> Path | None:
    """Where this machine has a model's tokenizer, or None. A hub id's is that of the hub's own cache."""
    folder = POCKET_FOLDER if model == POCKET else Path(model)
    if not folder.is_dir() and is_hub_id(model):
        found = _in_hub_cache(*model.partition("@")[::2])
        if found is None:
            return None
        folder = found
    return next((folder / name for name in ("tokenizer", "tokenizer_2") if (folder / name / MERGES).is_file()), None)


def _in_hub_cache(repository: str, revision: str) -> Path | None:
    home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    cache = Path(os.environ.get("HF_HUB_CACHE") or f"{home}/hub").expanduser()
    folder = cache / f"models--{repository.replace('/', '--')}"
    named = folder / "refs" / (revision or "main")
    commit = named.read_text().strip() if named.is_file() else revision  # a commit names itself
    snapshot = folder / "snapshots" / commit
    return snapshot if commit and snapshot.is_dir() else None
