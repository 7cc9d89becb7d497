"""What of a plan is new to a run that keeps its rows, and seeds for it that no other row of the run has.

A row that names no seed has one by where it stands in its file. When rows were put into the middle, those behind them
stand elsewhere: they are the rows that they were, with the seeds that they had, and are not new. And a new row may
stand where another one stood, which the run keeps: it gets a seed of a range that nobody has had. A seed that a row
names is its own affair, and so is that of cells of one matrix, which share prompt and seed.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b, sha256

from promptmill.producer.plan import Plan
from promptmill.producer.plan_builder import SHAPE_BITS, unpack
from promptmill.producer.plan_lines import seed_apart
from promptmill.producer.prompts.seeds import MOST, derived_seed
from promptmill.producer.spool import Heaps


@dataclass(frozen=True)
class Arrivals:
    """`new` has a 1 for each index of the plan that is new to the run; `seeds` are those that are to be another one."""

    new: bytearray
    seeds: dict[int, int] = field(default_factory=dict)
    seeds_end: int = 0
    """Behind the last of the indexes that the seeds were derived from."""


def arrivals(old: Plan, plan: Plan, takes: Callable[[int], bool], start: int, *, edited: bool) -> Arrivals:
    """What of `plan` comes to the run of the plan `old`: the indexes that it `takes`, but for rows that only moved.

    `edited`: rows may have moved. New seeds are derived from indexes from `start` on. Memory is two bytes per job.
    """
    new = bytearray(map(takes, range(plan.jobs)))
    if edited:
        _leave_moved_rows(old, plan, new)
    given: dict[bytes, int] = {}
    seeds = {}
    for index, seed in sorted(_taken_seeds(old, plan, new)):
        if seed not in given:
            given[seed] = derived_seed(plan.run_seed, start + len(given))
        seeds[index] = given[seed]
    return Arrivals(new, seeds, start + len(given))


def _leave_moved_rows(old: Plan, plan: Plan, new: bytearray) -> None:
    """Take out of `new` what differs from a row that the plan has no more in its derived seed alone."""
    gone, rows, moved = _gone(old, plan), Heaps(), Heaps()
    try:
        for index, line in enumerate(_lines(old)):
            seed, _, rest = seed_apart(line)
            if gone[index] and seed < MOST:
                rows.add(sha256(rest.encode()).digest(), index)
        for index, line in enumerate(_lines(plan)):
            if new[index] and plan.derived[index]:
                moved.add(sha256(seed_apart(line)[2].encode()).digest(), index)
        for first_byte in range(256):
            left = Counter(digest for digest, _ in rows.heap(first_byte))
            for digest, index in moved.heap(first_byte):
                if left[digest] > 0:
                    left[digest] -= 1
                    new[index] = 0
    finally:
        rows.close()
        moved.close()


def _gone(old: Plan, plan: Plan) -> bytearray:
    """A 1 for each index of the old plan whose job the new one does not have."""
    gone = bytearray(old.jobs)
    for first_byte in range(256):
        news = {digest for digest, _ in plan.heaps.heap(first_byte)}
        for digest, number in old.heaps.heap(first_byte):
            gone[number >> SHAPE_BITS] = digest not in news
    return gone


def _taken_seeds(old: Plan, plan: Plan, new: bytearray) -> Iterator[tuple[int, bytes]]:
    """New indexes with a derived seed that the run has for another prompt, and a hash of that seed."""
    there, indexes, texts = Heaps(), Heaps(), Heaps()
    try:
        for line in _lines(old):
            seed, prompt, _ = seed_apart(line)
            there.add(_seed_digest(seed), _short(prompt))
        for index, line in enumerate(_lines(plan)):
            if new[index] and plan.derived[index]:
                seed, prompt, _ = seed_apart(line)
                indexes.add(_seed_digest(seed), index)
                texts.add(_seed_digest(seed), _short(prompt))
        for first_byte in range(256) if len(indexes) else ():
            prompts = defaultdict[bytes, set[int]](set)
            for digest, short in there.heap(first_byte):
                prompts[digest].add(short)
            for (digest, index), (_, short) in zip(indexes.heap(first_byte), texts.heap(first_byte), strict=True):
                if digest in prompts and short not in prompts[digest]:
                    yield index, digest
    finally:
        for heaps in (there, indexes, texts):
            heaps.close()


def _lines(plan: Plan) -> Iterator[str]:
    for number in range(len(plan.pages)):
        yield from unpack(plan.pages[number])


def _seed_digest(seed: int) -> bytes:
    return blake2b(seed.to_bytes(8), digest_size=16).digest()


def _short(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest())
