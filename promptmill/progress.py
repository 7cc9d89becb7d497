"""How far it is, and how fast: a bar on a terminal, a line now and then without one. Words, so on stderr."""

import sys
import time
from types import TracebackType

import click
from tqdm import tqdm

from promptmill.verbs.rates import Landings, Rates, duration

LINE_EVERY_S = 10.0
RATE_AFTER_S = 0.5


class Progress:
    """Counts up to a total, or without an end where that is None. Use as a context manager."""

    def __init__(self, what: str, total: int | None, *, unit: str = "images") -> None:
        self._what = what
        self._total = total
        self._unit = unit
        # tqdm's own rate and time left would span stops.
        style = "{desc}: {n_fmt}" if total is None else "{l_bar}{bar}| {n_fmt}/{total_fmt}"
        shown = f"{style} [{{elapsed}}{{postfix}}]"
        self._bar = tqdm(total=total, desc=what, leave=False, disable=not sys.stderr.isatty(), bar_format=shown)
        self._note = ""
        self._so_far, self._lately = Landings(), Rates()
        self._next_line = time.monotonic() + LINE_EVERY_S

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    @property
    def rate(self) -> float | None:
        """A second, from the first count that was told to the last, but for stops; None while that would be a guess."""
        return self._so_far.rate(RATE_AFTER_S)

    def to(self, count: int) -> None:
        """That many of the total by now."""
        now = time.monotonic()
        self._so_far.look(count, now)
        lately = self._lately.look(self._what, count, now)
        if not self._bar.disable:
            self._bar.set_postfix_str(", ".join(filter(None, (self._time(count, lately), self._note))), refresh=False)
            self._bar.update(count - self._bar.n)
        elif now >= self._next_line:
            self._next_line = now + LINE_EVERY_S
            total = "" if self._total is None else f" of {self._total}"
            rate = None if self._so_far.stand_still(now) else self.rate
            told = f" ({_short(rate)} {self._unit}/s)" if rate else ""
            click.echo(f"{self._what} {count}{total}{told}", err=True)

    def _time(self, count: int, rate: float | None) -> str:
        """The rate now and the time left at it; nothing while it stands still."""
        if not rate:
            return ""
        left = "" if self._total is None else f"{duration((self._total - count) / rate)} left, "
        return f"{left}{_short(rate)} {self._unit}/s"

    def say(self, text: str) -> None:
        """A line of its own, above the bar."""
        self._bar.clear()
        click.echo(text, err=True)

    def note(self, text: str) -> None:
        """A word beside the bar."""
        self._note = text


def _short(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
