"""What `verify` finds wrong with a run, and what Redis may know of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["gone", "changed", "damaged", "foreign", "redis"]
"""It is not there; its bytes are others than were written; its bytes are not what they must be; nothing of this run
has that name; Redis counts it otherwise."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: the object's name in the run's output, what is wrong with it, and the job's index."""

    name: str
    problem: str
    index: int | None = None
    kind: Kind = "changed"


@dataclass(frozen=True)
class LedgerFacts:
    """What Redis knows of a run: its plan's digest, a bit per index that is done (the highest of a byte first), and why
    others failed, by index."""

    digest: str
    done: bytes = b""
    failures: Mapping[int, str] = field(default_factory=dict)

    def is_done(self, index: int) -> bool:
        return index >> 3 < len(self.done) and bool(self.done[index >> 3] & 0x80 >> (index & 7))
