"""Images that are the same, or look the same: each is told the first of its group.

Two hashes that differ in at most N bits are equal in one of N + 1 pieces, so only those are compared. Memory is some
hundred bytes per image.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import combinations

BITS = 64


class Groups:
    """Numbers that belong together; each group is known by its smallest."""

    def __init__(self) -> None:
        self._above: dict[int, int] = {}

    def first(self, number: int) -> int:
        """The smallest number of its group."""
        while (above := self._above.get(number, number)) != number:
            self._above[number] = self._above.get(above, above)
            number = above
        return number

    def join(self, one: int, other: int) -> None:
        low, high = sorted((self.first(one), self.first(other)))
        if low != high:
            self._above[high] = low


def same(keys: Iterable[tuple[int, object]]) -> Groups:
    """The groups of (index, key) with equal keys."""
    groups, seen = Groups(), dict[object, int]()
    for index, key in keys:
        groups.join(seen.setdefault(key, index), index)
    return groups


def alike(hashes: Iterable[tuple[int, int]], distance: int) -> Groups:
    """The groups of (index, hash of 64 bits) that differ in at most so many bits from another of their group."""
    hashes = list(hashes)
    groups, firsts = same(hashes), dict[int, int]()
    for index, one in hashes:
        firsts.setdefault(one, index)
    for one, other in _near(firsts, distance) if distance else ():
        groups.join(firsts[one], firsts[other])
    return groups


def _near(hashes: Iterable[int], distance: int) -> Iterator[tuple[int, int]]:
    hashes, pieces = list(hashes), distance + 1
    for piece in range(pieces):
        low, high = BITS * piece // pieces, BITS * (piece + 1) // pieces
        mask = (1 << high - low) - 1
        buckets: dict[int, list[int]] = defaultdict(list)
        for one in hashes:
            buckets[one >> low & mask].append(one)
        for bucket in buckets.values():
            yield from ((one, other) for one, other in combinations(bucket, 2) if (one ^ other).bit_count() <= distance)
