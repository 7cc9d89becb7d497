"""How far it is: a bar on a terminal, a line now and then without one. Words, so on stderr."""

import sys
import time
from types import TracebackType

import click
from tqdm import tqdm

LINE_EVERY_S = 10.0


class Progress:
    """Counts up to a total that is known. Use as a context manager."""

    def __init__(self, what: str, total: int) -> None:
        self._what = what
        self._total = total
        self._bar = tqdm(total=total, desc=what, unit="", leave=False, disable=not sys.stderr.isatty())
        self._next_line = time.monotonic() + LINE_EVERY_S

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def to(self, count: int) -> None:
        """That many of the total by now."""
        if self._bar.disable:
            if time.monotonic() >= self._next_line:
                self._next_line = time.monotonic() + LINE_EVERY_S
                click.echo(f"{self._what} {count} of {self._total}", err=True)
            return
        self._bar.update(count - self._bar.n)

    def note(self, text: str) -> None:
        """A word beside the bar."""
        self._bar.set_postfix_str(text, refresh=False)
