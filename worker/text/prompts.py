"""Prompts to token ids: windows of CLIP's length, a weight for each token, and a record of what was cut off.

What the device makes of it is `condition.py`; which of the community's ways this is and why, docs/prompts.md.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int32

from promptmill.worker.checkpoint.json_config import read_json
from promptmill.worker.errors import ConfigError
from promptmill.worker.text.clip_tokenizer import CLIPTokenizer
from promptmill.worker.text.weighting import Segment, parse, plain

# CLIP's, for a folder that holds a tokenizer but no encoder.
DEFAULT_LENGTH = 77
# The start mark and the end mark, of which every window has its own.
MARKS = 2
KEPT_TEXTS = 1024
MAX_SHOWN = 200  # characters of a cut prompt in a log's line


class Tokens(NamedTuple):
    """T texts in a fixed number of windows: K windows of L ids (77) for each of the two encoders.

    The first `windows` of a text hold it, the rest are windows of the empty text; a text takes as many as
    the encoder with the longer half of it needs. Weights are measured from `empty`, the empty text's window, once a
    text. With one tokenizer (a refiner) both halves are the same.
    """

    ids: Int32[Any, "T K L"]
    ids_2: Int32[Any, "T K L"]
    weights: Float32[Any, "T K L"]
    weights_2: Float32[Any, "T K L"]
    empty: Int32[Any, "T L"]
    empty_2: Int32[Any, "T L"]
    windows: Int32[Any, " T"]


@dataclass(frozen=True)
class Cut:
    """What the encoders do not see of one text: the end of the prompt as it was written.

    `text_2` is what the second one does not see of a text of its own. `limit` is how many tokens each does see.
    """

    text: str
    text_2: str
    limit: int

    def __str__(self) -> str:
        lost = [text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…" for text in (self.text, self.text_2) if text]
        return f"longer than {self.limit} tokens, so the end was cut off: {' and '.join(map(repr, lost))}"


class Tokenizers:
    """The tokenizers of a model, for any thread. A refiner has `tokenizer_2` alone, which then takes the first texts.

    Raises ConfigError where a tokenizer cannot be read, or does not fit its encoder or the other tokenizer.
    """

    def __init__(self, folder: Path, names: Sequence[str] = ("tokenizer", "tokenizer_2")) -> None:
        self._each = tuple(_Tokenizer.open(folder, name) for name in names)
        first = self._each[0]
        for name, other in zip(names, self._each, strict=True):
            if other.length != first.length:
                raise ConfigError(
                    f"{folder / name}: its texts are {other.length} tokens long, but those of {names[0]} "
                    f"{first.length}; they must agree, because both encoders' outputs are concatenated"
                )

    @property
    def length(self) -> int:
        """Tokens of one window, marks and padding included: 77."""
        return self._each[0].length

    def read(self, text: str, text_2: str, *, windows: int, weighted: bool) -> list["_Half"]:
        """One text for each encoder there is. As in diffusers, a lone second tokenizer takes the first text."""
        return [
            tokenizer.read(part, windows=windows, weighted=weighted)
            for tokenizer, part in zip(self._each, (text, text_2), strict=False)
        ]


def tokenize(
    tokenizers: Tokenizers,
    texts: Sequence[str],
    texts_2: Sequence[str],
    *,
    windows: int,
    weighted: bool | Sequence[bool] = False,
) -> tuple[Tokens, list[Cut | None]]:
    """T texts in as many `windows` each, and of each text what did not fit. RequestError for wrong brackets.

    `weighted` says, for all or for each text, whether brackets are weights; else they are text and all weights 1.
    """
    flags = [weighted] * len(texts) if isinstance(weighted, bool) else weighted
    halves = [
        tokenizers.read(text, text_2, windows=windows, weighted=flag)
        for text, text_2, flag in zip(texts, texts_2, flags, strict=True)
    ]
    first, second = [pair[0] for pair in halves], [pair[-1] for pair in halves]
    tokens = Tokens(
        ids=np.stack([half.ids for half in first]),
        ids_2=np.stack([half.ids for half in second]),
        weights=np.stack([half.weights for half in first]),
        weights_2=np.stack([half.weights for half in second]),
        empty=np.stack([half.empty for half in first]),
        empty_2=np.stack([half.empty for half in second]),
        windows=np.array([max(half.windows for half in pair) for pair in halves], np.int32),
    )
    limit = windows * (tokenizers.length - MARKS)
    return tokens, [_cut(pair, limit) for pair in halves]


class _Half(NamedTuple):
    """One text for one encoder."""

    text: str
    ids: Int32[np.ndarray, "K L"]
    weights: Float32[np.ndarray, "K L"]
    empty: Int32[np.ndarray, " L"]
    windows: int
    lost: str


def _cut(pair: Sequence[_Half], limit: int) -> Cut | None:
    first, second = pair[0], pair[-1]
    same = first.text == second.text and first.lost == second.lost
    cut = Cut(first.lost, "" if same else second.lost, limit)
    return cut if cut.text or cut.text_2 else None


@dataclass(frozen=True)
class _Tokenizer:
    """One encoder's tokenizer; what it made of the last KEPT_TEXTS texts is kept, as runs repeat negative prompts."""

    clip: CLIPTokenizer
    pad: int
    length: int
    # A textual inversion of several vectors, by its name: all its tokens.
    inversions: dict[str, str]
    read: Callable[..., _Half] = field(init=False)

    @classmethod
    def open(cls, folder: Path, name: str) -> "_Tokenizer":
        clip = _open_tokenizer(folder / name)
        encoder = _encoder_config(folder / name.replace("tokenizer", "text_encoder") / "config.json")
        pad = _check_vocabulary(folder / name, clip, encoder.get("vocab_size"))
        length = _length(folder / name, clip, encoder.get("max_position_embeddings", DEFAULT_LENGTH))
        return cls(clip, pad, length, _inversions(clip))

    def __post_init__(self) -> None:
        object.__setattr__(self, "read", lru_cache(KEPT_TEXTS)(self._read))

    def _read(self, text: str, *, windows: int, weighted: bool) -> _Half:
        ids: list[int] = []
        weights: list[float] = []
        places: list[int] = []
        for segment in parse(text) if weighted else plain(text):
            segment = _expand(segment, self.inversions)
            encoding = self.clip.backend.encode(segment.text, add_special_tokens=False)
            ids += encoding.ids
            weights += [segment.weight] * len(encoding.ids)
            places += [segment.places[start] for start, _ in encoding.offsets]
        kept = windows * (self.length - MARKS)
        return _Half(
            text,
            ids=self._windows(ids[:kept], windows),
            weights=self._weights(weights[:kept], windows),
            empty=self._windows([], 1)[0],
            windows=max(1, math.ceil(min(len(ids), kept) / (self.length - MARKS))),
            lost=text[places[kept] :] if kept < len(ids) else "",
        )

    def _windows(self, ids: list[int], windows: int) -> Int32[np.ndarray, "K L"]:
        """Windows with marks of their own, each padded to its end."""
        size = self.length - MARKS
        found = np.full((windows, self.length), self.pad, np.int32)
        found[:, 0] = self.clip.start
        for index in range(windows):
            part = ids[index * size : (index + 1) * size]
            found[index, 1 : 1 + len(part)] = part
            found[index, 1 + len(part)] = self.clip.end
        return found

    def _weights(self, weights: list[float], windows: int) -> Float32[np.ndarray, "K L"]:
        size = self.length - MARKS
        inner = np.ones(windows * size, np.float32)
        inner[: len(weights)] = weights
        return np.pad(inner.reshape(windows, size), ((0, 0), (1, 1)), constant_values=1)


def _open_tokenizer(folder: Path) -> CLIPTokenizer:
    if not folder.is_dir():
        raise ConfigError(f"{folder}: is not there, but the model needs its tokenizer")
    if not (folder / "tokenizer.json").is_file():
        for name in ("vocab.json", "merges.txt"):
            if not (folder / name).is_file():
                raise ConfigError(
                    f"{folder / name}: is not there, and neither is tokenizer.json, which would do instead"
                )
    try:
        return CLIPTokenizer.from_folder(folder)
    except Exception as error:  # the library raises no less bare a one for a broken vocabulary
        raise ConfigError(f"{folder}: cannot be read as a CLIP tokenizer: {error}") from error


def _encoder_config(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _check_vocabulary(folder: Path, tokenizer: CLIPTokenizer, vocab_size: int | None) -> int:
    """The id of padding. ConfigError where the encoder does not know every id: it would read past its table."""
    if tokenizer.pad is None or tokenizer.start == tokenizer.end:
        raise ConfigError(
            f"{folder}: expected a BOS, another EOS and a padding token, "
            f"got the ids {tokenizer.start}, {tokenizer.end} and {tokenizer.pad}"
        )
    largest = tokenizer.largest_id
    if vocab_size is not None and largest >= vocab_size:
        raise ConfigError(f"{folder}: its largest id is {largest}, but its encoder's vocab_size is {vocab_size}")
    return tokenizer.pad


def _length(folder: Path, tokenizer: CLIPTokenizer, positions: int) -> int:
    """Tokens of a window: the tokenizer's own limit, where it has one that its encoder has places for."""
    length = min(tokenizer.model_max_length, positions)
    if length <= MARKS:
        raise ConfigError(f"{folder}: its texts are {length} tokens long, expected at least {MARKS + 1}")
    return length


def _inversions(tokenizer: CLIPTokenizer) -> dict[str, str]:
    """Textual inversions of several vectors are named `<it>`, `<it>_1`, ...: diffusers' `load_textual_inversion`."""
    added = frozenset(tokenizer.added)
    found = {}
    for token in tokenizer.added:
        family = [token]
        while f"{token}_{len(family)}" in added:
            family.append(f"{token}_{len(family)}")
        # One of a single vector stands here too, so that a longer name is not taken for a shorter one.
        found[token] = " ".join(family)
    return found if any(token != family for token, family in found.items()) else {}


def _expand(segment: Segment, inversions: dict[str, str]) -> Segment:
    """Every inversion with all its tokens, as diffusers' `maybe_convert_prompt` writes them into the prompt."""
    if not inversions:
        return segment
    names = "|".join(re.escape(name) for name in sorted(inversions, key=len, reverse=True))
    text, places = "", []
    for match in re.finditer(f"{names}|.", segment.text, re.DOTALL):
        written = inversions.get(match[0], match[0])
        text += written
        places += [segment.places[match.start()]] * len(written)
    return Segment(text, segment.weight, places)
