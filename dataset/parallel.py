"""Work of several threads, in order, without holding more of it than is under way."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

READERS = 16
"""Objects read at once: a bucket takes tens of milliseconds for each."""

T = TypeVar("T")
R = TypeVar("R")


def mapped(function: Callable[[T], R], items: Iterable[T], threads: int = READERS) -> Iterator[R]:
    """`map` by several threads. Of the items, and of their results, twice as many are held as there are threads.

    An executor's own `map` takes all items at once, which for ten million of them is all memory.
    """
    flying: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads, "dataset") as pool:
        try:
            for item in items:
                flying.append(pool.submit(function, item))
                if len(flying) >= 2 * threads:
                    yield flying.popleft().result()
            while flying:
                yield flying.popleft().result()
        finally:
            for future in flying:
                future.cancel()
