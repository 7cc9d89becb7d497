"""A prompt with alternatives, as a tree: how many texts it may become, one at random, or every one in order.

`count` is how many combinations there are, MANY standing for that many or more. `cost` bounds what one text may take,
in characters and choices: known before anything is drawn, since files that name one another twice double at each step.
"""

import heapq
import math
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, combinations
from random import Random
from typing import Protocol

MANY = 10**18
SEPARATOR = ", "


@dataclass(frozen=True)
class Draws:
    """Where random choices come from. `in_order(file, lines, n)`: the next n lines of a wildcard, if not at random."""

    random: Random
    in_order: Callable[[str, int, int], list[int]] | None = None


class Node(Protocol):
    """A part of a template."""

    @property
    def count(self) -> int: ...
    @property
    def cost(self) -> int: ...
    @property
    def depth(self) -> int: ...
    def draw(self, draws: Draws) -> str: ...
    def every(self) -> Iterator[str]: ...


@dataclass(frozen=True)
class Text:
    """Itself."""

    text: str
    count: int = 1
    depth: int = 0

    @property
    def cost(self) -> int:
        return 1 + len(self.text)

    def draw(self, draws: Draws) -> str:
        return self.text

    def every(self) -> Iterator[str]:
        yield self.text


@dataclass(frozen=True)
class Parts:
    """One after the other."""

    parts: tuple[Node, ...]

    @cached_property
    def count(self) -> int:
        return min(MANY, math.prod(part.count for part in self.parts))

    @cached_property
    def cost(self) -> int:
        return 1 + sum(part.cost for part in self.parts)

    @cached_property
    def depth(self) -> int:
        return max((part.depth for part in self.parts), default=0)

    def draw(self, draws: Draws) -> str:
        return "".join([part.draw(draws) for part in self.parts])

    def every(self) -> Iterator[str]:
        return _product(self.parts, "")


@dataclass(frozen=True)
class Choice:
    """From `low` to `high` different ones of its options, in the order written.

    `file` names the wildcard whose lines they are. Weights mean nothing in sequence, nor among all combinations.
    """

    options: tuple[Node, ...]
    weights: tuple[float, ...]
    low: int = 1
    high: int = 1
    separator: str = SEPARATOR
    file: str | None = None

    @cached_property
    def count(self) -> int:
        return min(MANY, _ways([option.count for option in self.options], self.low, self.high))

    @cached_property
    def cost(self) -> int:
        each = len(self.separator) if self.high > 1 else 0
        return 1 + sum(heapq.nlargest(self.high, (option.cost + each for option in self.options)))

    @cached_property
    def depth(self) -> int:
        return 1 + max(option.depth for option in self.options)

    @cached_property
    def _bounds(self) -> list[float] | None:
        """The weights summed up, or None where all are alike."""
        return list(accumulate(self.weights)) if len(set(self.weights)) > 1 else None

    def draw(self, draws: Draws) -> str:
        size = self.low + int(draws.random.random() * (self.high - self.low + 1)) if self.low < self.high else self.low
        if self.file is not None and draws.in_order:
            chosen = draws.in_order(self.file, len(self.options), size)
        else:
            chosen = sorted(self._sample(draws.random, size))
        return self.separator.join([self.options[at].draw(draws) for at in chosen])

    def _sample(self, random: Random, size: int) -> list[int]:
        if self._bounds is None:
            return _alike(random, len(self.options), size)
        if size == 1:
            return [_below(self._bounds, random)]
        left = list(range(len(self.options)))
        return [left.pop(_below(list(accumulate(self.weights[at] for at in left)), random)) for _ in range(size)]

    def every(self) -> Iterator[str]:
        for size in range(self.low, self.high + 1):
            for chosen in combinations(self.options, size):
                yield from _product(chosen, self.separator)


class Drawn(str):
    """A text that a template became, with what was chosen at each of its alternatives, in order."""

    __slots__ = ("choices", "template")

    def __new__(cls, template: str, parts: Sequence[Node], texts: Sequence[str]) -> "Drawn":
        drawn = super().__new__(cls, "".join(texts))
        drawn.template = template
        drawn.choices = tuple(text for part, text in zip(parts, texts, strict=True) if isinstance(part, Choice))
        return drawn

    template: str
    choices: tuple[str, ...]


def draw(template: str, node: Node, draws: Draws) -> Drawn:
    """One text of a template at random; `node` is its tree."""
    parts = _parts(node)
    return Drawn(template, parts, [part.draw(draws) for part in parts])


def every(template: str, node: Node) -> Iterator[Drawn]:
    """Every text of a template, in order."""
    parts = _parts(node)
    return (Drawn(template, parts, texts) for texts in _combinations(parts))


def _parts(node: Node) -> tuple[Node, ...]:
    return node.parts if isinstance(node, Parts) else (node,)


def _below(bounds: list[float], random: Random) -> int:
    return min(bisect(bounds, random.random() * bounds[-1]), len(bounds) - 1)


def _alike(random: Random, count: int, size: int) -> list[int]:
    """Different numbers below `count`, all as likely: Floyd's sampling (Bentley, CACM 1987)."""
    chosen: list[int] = []
    for last in range(count - size, count):
        at = int(random.random() * (last + 1))
        chosen.append(last if at in chosen else at)
    return chosen


def _ways(counts: list[int], low: int, high: int) -> int:
    """The ways to choose from `low` to `high` of things that each come in so many forms."""
    if low == high == 1:
        return sum(counts)
    if math.comb(len(counts), min(max(len(counts) // 2, low), high)) >= MANY:
        return MANY
    ways = [1] + [0] * high  # of choosing that many of the things so far
    for count in counts:
        for size in range(high, 0, -1):
            ways[size] += count * ways[size - 1]
    return sum(ways[low:])


def _product(parts: tuple[Node, ...], separator: str) -> Iterator[str]:
    """Every text of the first with every one of the second, and so on; the last turns fastest. Keeps none of them."""
    return (separator.join(texts) for texts in _combinations(parts))


def _combinations(parts: tuple[Node, ...]) -> Iterator[list[str]]:
    """The same as lists, each of which is the next one's too: to be used at once."""
    if not parts:
        yield []
        return
    texts = [""] * len(parts)
    turning = [parts[0].every()]
    while turning:
        text = next(turning[-1], None)
        if text is None:
            turning.pop()
            continue
        texts[len(turning) - 1] = text
        if len(turning) == len(parts):
            yield texts
        else:
            turning.append(parts[len(turning)].every())
