"""What soaks injected, and what came of it: one session's, and the sum of several in a file."""

import json
import statistics
from collections import Counter
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any


@dataclass
class Tally:
    """Sums over sessions. Two are added field by field."""

    sessions: list[str] = field(default_factory=list)
    minutes: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    jobs: int = 0
    images: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    """Jobs without an image, by the reason that was recorded."""
    lost: list[str] = field(default_factory=list)
    """Jobs with neither image nor reason, and runs that did not end."""
    doubled: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    uploads: Counter[str] = field(default_factory=Counter)
    """Of images: made, and refused since one was there."""
    written_over: Counter[str] = field(default_factory=Counter)
    rendered: int = 0
    rendered_again: Counter[str] = field(default_factory=Counter)
    """By cause."""
    after_sigkill_s: list[float] = field(default_factory=list)
    after_sigterm_s: list[float] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return not (self.lost or self.doubled or self.broken)

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(**{one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)})

    def told(self) -> dict[str, Any]:
        """As a person reads it: lists of times as what they spread over, and how many processes were killed in all."""
        told = dict(vars(self))
        for name in ("after_sigkill_s", "after_sigterm_s"):
            told[name] = spread(told[name])
        for name in ("faults", "failed", "uploads", "written_over", "rendered_again"):
            told[name] = dict(getattr(self, name).most_common())
        sigkills = sum(count for what, count in self.faults.items() if what.startswith("SIGKILL"))
        return {**told, "sigkills": sigkills, "minutes": round(self.minutes, 1)}


def spread(seconds: list[float]) -> dict[str, float]:
    if not seconds:
        return {}
    ranked = sorted(seconds)
    at = {"p90": ranked[int(0.9 * (len(ranked) - 1))], "p99": ranked[int(0.99 * (len(ranked) - 1))], "most": ranked[-1]}
    return {
        "times": len(ranked),
        "median": round(statistics.median(ranked), 2),
        **{name: round(value, 2) for name, value in at.items()},
    }


def add_to(path: Path, tally: Tally) -> Tally:
    """The sum of the file's and this one, which the file holds then."""
    whole = read(path) + tally
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(vars(whole), indent=1))
    fresh.replace(path)
    return whole


def read(path: Path) -> Tally:
    """What a file holds; nothing yet where there is none."""
    if not path.exists():
        return Tally()
    held: dict[str, Any] = json.loads(path.read_text())
    counters = {one.name for one in fields(Tally) if one.default_factory is Counter}
    held |= {name: Counter(held[name]) for name in counters}
    return Tally(**held)
