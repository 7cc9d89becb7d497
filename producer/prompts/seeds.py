"""The seed of a job that names none: from the run's seed and the job's index in the run, and never the same twice."""

import hashlib
import struct
from functools import lru_cache

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


@lru_cache(8)
def _tables(run_seed: int) -> tuple[tuple[int, ...], ...]:
    """Each round's function, of all that half an index may be."""
    texts = (f"promptmill-seed-1 {run_seed} {number}" for number in range(ROUNDS))
    return tuple(struct.unpack(f"<{HALF}H", hashlib.shake_256(text.encode()).digest(2 * HALF)) for text in texts)
