"""The seed of a job that names none: from the run's seed and its index among the seeds, and never the same twice.

The rows of a run's first prompt file have the indexes 0, 1, 2, ...; those of each further one begin at a
distance (`next_range`), so that rows which are appended to one file move no row of another.
"""

import hashlib
import struct
from functools import lru_cache

ROOM = 1 << 20
"""Indexes that a prompt file has at least for its rows: it can grow so far without touching those of the next one."""

MOST = 1 << 32  # indexes whose seeds differ in what PyTorch's generator looks at

ROUNDS = 4  # of a Feistel network: a bijection whatever its round function (Luby and Rackoff, 1988)
HALF = 1 << 16


def derived_seed(run_seed: int, index: int) -> int:
    """A seed of 32 bits, all that PyTorch's generator looks at; no two of the first 2^32 indexes of a run share one.

    Run seed 0 stands for the indexes themselves: 0, 1, 2, ...
    """
    if run_seed == 0:
        return index
    left, right = (index >> 16) % HALF, index % HALF
    for table in _tables(run_seed):
        left, right = right, left ^ table[right]
    return index >> 32 << 32 | left << 16 | right


def next_range(end: int) -> int:
    """Where the seeds of the next prompt file begin, when those so far reach to `end`.

    At a multiple of ROOM; right behind, where that would leave the 2^32 that differ: some four thousand files.
    """
    rounded = -(-end // ROOM) * ROOM
    return rounded if rounded + ROOM <= MOST else end


@lru_cache(8)
def _tables(run_seed: int) -> tuple[tuple[int, ...], ...]:
    """Each round's function, of all that half an index may be."""
    texts = (f"promptmill-seed-1 {run_seed} {number}" for number in range(ROUNDS))
    return tuple(struct.unpack(f"<{HALF}H", hashlib.shake_256(text.encode()).digest(2 * HALF)) for text in texts)
