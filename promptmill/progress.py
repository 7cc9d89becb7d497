"""How far it is, and how fast: a bar on a terminal, a line now and then without one. Words, so on stderr."""

import sys
import time
from types import TracebackType

import click
from tqdm import tqdm

LINE_EVERY_S = 10.0
RATE_AFTER_S = 0.5


class Progress:
    """Counts up to a total, or without an end where that is None. Use as a context manager."""

    def __init__(self, what: str, total: int | None, *, unit: str = "images") -> None:
        self._what = what
        self._total = total
        self._unit = unit
        self._bar = tqdm(total=total, desc=what, unit=f" {unit}", leave=False, disable=not sys.stderr.isatty())
        self._first: tuple[float, int] | None = None
        self._last: tuple[float, int] | None = None
        self._next_line = time.monotonic() + LINE_EVERY_S

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    @property
    def rate(self) -> float | None:
        """A second, from the first count that was told to the last; None while that would be a guess."""
        if not self._first or not self._last or self._last[0] - self._first[0] < RATE_AFTER_S:
            return None
        return (self._last[1] - self._first[1]) / (self._last[0] - self._first[0])

    def to(self, count: int) -> None:
        """That many of the total by now."""
        now = time.monotonic()
        self._first = self._first or (now, count)
        self._last = (now, count)
        if not self._bar.disable:
            self._bar.update(count - self._bar.n)
        elif now >= self._next_line:
            self._next_line = now + LINE_EVERY_S
            total = "" if self._total is None else f" of {self._total}"
            rate = f" ({_short(self.rate)} {self._unit}/s)" if self.rate else ""
            click.echo(f"{self._what} {count}{total}{rate}", err=True)

    def say(self, text: str) -> None:
        """A line of its own, above the bar."""
        self._bar.clear()
        click.echo(text, err=True)

    def note(self, text: str) -> None:
        """A word beside the bar."""
        self._bar.set_postfix_str(text, refresh=False)


def _short(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
