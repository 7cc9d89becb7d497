r"""What brackets in a prompt mean, for a job that asks for it: `(word:1.3)` and the like. Pure text, no arrays.

    (text)        1.1 times       (text:1.3)   1.3 times: a number from 0 to 10
    [text]        1 / 1.1 times   nested brackets multiply
    \( \) \[ \] \: \\             the character itself; any other backslash is a backslash

The grammar is that of AUTOMATIC1111's web UI (its `parse_prompt_attention`), but what it would guess at is refused
here, with the place: among a million images nobody sees the one whose bracket never closed.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from promptmill.worker.errors import RequestError

UP = 1.1
DOWN = 1 / 1.1
# ComfyUI's and A1111's images fall apart beyond 2; more than this is a clock or a ratio that somebody wrote.
MAX_WEIGHT = 10.0

_TOKEN = re.compile(
    r"""
    \\(?P<escaped>[()\[\]:\\])
  | (?P<open>[(\[])
  | :\s*(?P<number>[+-]?[.\d]+)\s*(?P<closing>[)\]])
  | (?P<close>[)\]])
  | (?P<plain>[^\\()\[\]:]+|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_PAIRS = {")": "(", "]": "["}


@dataclass(frozen=True)
class Segment:
    """A stretch of a prompt of one weight; `places` says where in the prompt each of its characters stands."""

    text: str
    weight: float
    places: Sequence[int]


def plain(prompt: str) -> list[Segment]:
    """The prompt as it stands: brackets are brackets."""
    return [Segment(prompt, 1.0, range(len(prompt)))]


def parse(prompt: str) -> list[Segment]:
    """The stretches of a weighted prompt; neighbours of one weight are joined. RequestError names the place."""
    letters = list(_Reader(prompt).letters())
    segments = []
    for weight, group in groupby(letters, key=lambda letter: letter.weight):
        members = list(group)
        text = "".join(letter.text for letter in members)
        segments.append(Segment(text, weight, tuple(letter.place for letter in members)))
    return segments or plain("")


@dataclass
class _Letter:
    text: str
    place: int
    weight: float = 1.0


@dataclass
class _Bracket:
    """One that is open: what it is, where it stands, and how many letters came before it."""

    kind: str
    place: int
    before: int


@dataclass
class _Reader:
    prompt: str
    _letters: list[_Letter] = field(default_factory=list)
    _open: list[_Bracket] = field(default_factory=list)

    def letters(self) -> Iterator[_Letter]:
        for match in _TOKEN.finditer(self.prompt):
            self._take(match)
        if self._open:
            raise self._error(self._open[-1].place, f"{self._open[-1].kind!r} is never closed")
        for letter in self._letters:
            if letter.weight > MAX_WEIGHT:
                raise self._error(letter.place, f"nested weights multiply to {letter.weight:g}, above {MAX_WEIGHT:g}")
        return iter(self._letters)

    def _take(self, match: re.Match[str]) -> None:
        place = match.start()
        if match["open"]:
            self._open.append(_Bracket(match["open"], place, len(self._letters)))
        elif match["close"]:
            self._close(match["close"], place, UP if match["close"] == ")" else DOWN)
        elif match["closing"]:
            self._close(match["closing"], place, self._number(match))
        else:
            # An escape's character counts as standing where its backslash does.
            text = match["escaped"] or match["plain"]
            self._letters += [_Letter(letter, place + index) for index, letter in enumerate(text)]

    def _close(self, kind: str, place: int, weight: float) -> None:
        if not self._open or self._open[-1].kind != _PAIRS[kind]:
            raise self._error(place, f"{kind!r} closes nothing")
        bracket = self._open.pop()
        if kind == "]" and "|" in self.prompt[bracket.place : place]:
            raise self._error(bracket.place, "[...|...] (alternating words) is not implemented")
        for letter in self._letters[bracket.before :]:
            letter.weight *= weight

    def _number(self, match: re.Match[str]) -> float:
        text = match["number"]
        if match["closing"] == "]":
            raise self._error(match.start(), f"[...:{text}] (prompt editing) is not implemented")
        try:
            weight = float(text)
        except ValueError:
            weight = math.nan
        if not 0 <= weight <= MAX_WEIGHT:
            raise self._error(match.start(), f"a weight is a number from 0 to {MAX_WEIGHT:g}, got {text}")
        return weight

    def _error(self, place: int, reason: str) -> RequestError:
        near = self.prompt[max(0, place - 20) : place + 20]
        return RequestError(
            f"prompt weights: {reason}: character {place + 1}, near {near!r}; "
            f"a backslash before a bracket or colon makes it plain text"
        )
