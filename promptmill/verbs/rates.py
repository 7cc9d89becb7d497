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


def _stands_still(landings: deque[tuple[float, int]], now: float) -> bool:
    if len(landings) == 1:
        return False
    usual_gap_s = (landings[-1][0] - landings[0][0]) / (len(landings) - 1)
    return now - landings[-1][0] > max(STOP_S, STOP_GAPS * usual_gap_s)
