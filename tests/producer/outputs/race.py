"""Many writers at once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from promptmill.producer.outputs.output import (
    Put,
)

WRITERS = 16


def race(write: Callable[[int], Put]) -> Counter[Put]:
    """All writers at once; what each of them was told."""
    gate = threading.Barrier(WRITERS)

    def enter(writer: int) -> Put:
        gate.wait()
        return write(writer)

    with ThreadPoolExecutor(WRITERS) as pool:
        return Counter(pool.map(enter, range(WRITERS)))


def entries(folder: Path) -> set[str]:
    """All that lies in it, what listings hide too."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
