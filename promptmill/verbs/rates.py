"""How quick a run is now, as one sees it who looks now and then."""

from collections import deque

WINDOW_S = 60.0


class Rates:
    """Images a second of each run over the last minute, from what the looks at it found."""

    def __init__(self) -> None:
        self._looks: dict[str, deque[tuple[float, int]]] = {}

    def look(self, run: str, done: int, now: float) -> float | None:
        """Notes that so many images are done at `now` (seconds); the rate since, or None at the first look."""
        looks = self._looks.setdefault(run, deque())
        looks.append((now, done))
        while len(looks) > 2 and looks[0][0] < now - WINDOW_S:
            looks.popleft()
        then, before = looks[0]
        return max(done - before, 0) / (now - then) if now > then else None
