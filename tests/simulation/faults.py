"""What a world does to those who live in it: how often, drawn once for each seed."""

import random
from dataclasses import dataclass
from enum import Enum


class Fate(Enum):
    """Of one request over a network."""

    FINE = "fine"
    NOT_SENT = "lost on its way there"
    NO_ANSWER = "done, and the answer lost"
    HANGS = "lost on its way there, and nobody says so"
    ANSWER_HANGS = "done, and nobody says so"
    LATE = "the connection breaks, and the request arrives later"
    SLOW = "slow"
    BUSY = "refused for the moment (503 or 429)"
    BUSY_BUT_DONE = "done, and answered with 503"
    FORBIDDEN = "refused (403)"


REDIS_FATES = (Fate.NOT_SENT, Fate.NO_ANSWER, Fate.HANGS, Fate.ANSWER_HANGS, Fate.LATE, Fate.SLOW)
BUCKET_FATES = (*REDIS_FATES, Fate.BUSY, Fate.BUSY_BUT_DONE, Fate.FORBIDDEN)


@dataclass(frozen=True)
class Faults:
    """Rates of a world. Of requests: the share that meets a fate. Of events: how many in a virtual minute."""

    redis: float = 0.0
    bucket: float = 0.0
    kills: float = 0.0
    terms: float = 0.0
    stops: float = 0.0
    """SIGSTOP, for up to three leases."""
    partitions: float = 0.0
    crashes: float = 0.0
    """Of Redis; what came in the last second is lost."""
    wipes: float = 0.0
    jumps: float = 0.0
    """Of Redis' clock, forwards or back, by up to three leases."""
    submitter_kills: float = 0.0
    people: float = 0.0
    """Cancel, pause, go on, retry, priorities, an image deleted."""
    squatters: float = 0.0
    """The share of images under whose name something lies already: cut off, or somebody else's."""
    poison: float = 0.0
    """The share of jobs that kill their worker."""
    cursed: float = 0.0
    """The share of jobs whose batch always fails."""
    slow_start: bool = False
    """Whether a worker loads and compiles before it renders."""

    @property
    def none(self) -> bool:
        return self == Faults()


_RANGES: dict[str, tuple[float, float]] = {
    "redis": (0.002, 0.08),
    "bucket": (0.01, 0.4),
    "kills": (1, 8),
    "terms": (1, 6),
    "stops": (1, 5),
    "partitions": (1, 4),
    "crashes": (1, 4),
    "wipes": (0.5, 2),
    "jumps": (0.5, 3),
    "submitter_kills": (5, 40),
    "people": (1, 10),
    "squatters": (0.05, 0.5),
    "poison": (0.05, 0.3),
    "cursed": (0.05, 0.3),
}


def draw(chance: random.Random) -> Faults:
    """One world in ten has no faults at all, one in three has one kind, others several."""
    kind = chance.random()
    if kind < 0.1:
        return Faults()
    names = list(_RANGES)
    chosen = chance.sample(names, 1 if kind < 0.4 else chance.randint(2, 6))
    return Faults(slow_start=chance.random() < 0.1, **{name: chance.uniform(*_RANGES[name]) for name in chosen})
