"""How quick a run is now, as one sees it who looks now and then."""

from collections import deque

WINDOW_S = 60.0
KEPT = 5  # landings kept however old they are: a slow run has a rate too
ENOUGH_S = 1.0  # of watching, before there is a rate
STOP_S = 15.0
STOP_GAPS = 5
"""Nothing landed for STOP_S, and for STOP_GAPS times the usual gap: the run stands still, and its rate begins anew."""


class Rates:
    """Images per second of each run over the last minute, from what the looks at it found."""

    def __init__(self) -> None:
        self._landings: dict[str, deque[tuple[float, int]]] = {}

    def look(self, run: str, done: int, now: float) -> float | None:
        """Note that so many images are done at `now` (seconds); the rate, or None while that would be a guess."""
        landings = self._landings.setdefault(run, deque())
        if landings and (done < landings[-1][1] or _stands_still(landings, now)):
            landings.clear()
        if len(landings) == 1 and done == landings[0][1]:
            landings.clear()  # a rate begins when something lands, not when one begins to wait for it
        if not landings or done > landings[-1][1]:
            landings.append((now, done))
        while len(landings) > KEPT and landings[0][0] < now - WINDOW_S:
            landings.popleft()
        then, before = landings[0]
        if len(landings) < 3 or now - then < ENOUGH_S:
            return None
        return (done - before) / (now - then)


class Landings:
    """How many have landed in how long, without the times in which nothing came."""

    def __init__(self) -> None:
        self._first = self._last = self._stopped_s = 0.0
        self._before = self._count = 0
        self._seen = 0  # changes of the count, the first look included

    def look(self, count: int, now: float) -> None:
        """Note that so many are there at `now` (seconds)."""
        if not self._seen:
            self._first, self._before = now, count
        elif count == self._count:
            return
        elif self.stand_still(now):
            self._stopped_s += now - self._last - self._usual_gap_s
        self._last, self._count, self._seen = now, count, self._seen + 1

    def stand_still(self, now: float) -> bool:
        """Whether nothing has landed for much longer than usual."""
        return self._seen > 1 and now - self._last > max(STOP_S, STOP_GAPS * self._usual_gap_s)

    @property
    def _usual_gap_s(self) -> float:
        return (self._last - self._first - self._stopped_s) / (self._seen - 1)

    def rate(self, after_s: float = ENOUGH_S) -> float | None:
        """A second; None while fewer than `after_s` seconds tell of it."""
        span_s = self._last - self._first - self._stopped_s
        return (self._count - self._before) / span_s if self._seen and span_s >= after_s else None


def duration(seconds: float) -> str:
    """`0:07`, `1:02:03`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _stands_still(landings: deque[tuple[float, int]], now: float) -> bool:
    if len(landings) == 1:
        return False
    usual_gap_s = (landings[-1][0] - landings[0][0]) / (len(landings) - 1)
    return now - landings[-1][0] > max(STOP_S, STOP_GAPS * usual_gap_s)
