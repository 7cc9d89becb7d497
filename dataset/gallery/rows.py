"""Rows of a run as the gallery's page reads them: columns of a fixed range of indexes.

first           the first index
extension       of the images' files
states          a letter each: d done, f failed, b broken, m missing
ids, prompts    texts
seeds           texts too: JavaScript's numbers end at 2^53
kinds, kind     JSON of all other fields, once for all rows that share them; the number of each row's
labels          an object or null each
more            by the place in the range, what few rows have: reason, notes, template, choices, row
scores          by name, a number or null each
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from promptmill.dataset.gallery.sprites import Thumbnail
from promptmill.dataset.gallery.states import BROKEN, DONE
from promptmill.producer.job import canonical_json
from promptmill.producer.plan_lines import PlannedJob

CHUNK_ROWS = 1000
"""Indexes per file of data: some 300 KB."""

FORMAT = "promptmill-gallery-1"


@dataclass(frozen=True)
class Range:
    """Jobs that follow one another, whether each has its image, and what else is known of them."""

    jobs: Sequence[PlannedJob]
    states: bytes
    common: Mapping[str, Any]
    reasons: Mapping[int, str] = field(default_factory=dict)
    scores: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    extension: str = "png"
    versions: Sequence[int] = ()
    """Of each image's bytes, as far as a listing tells them from others under the same name."""

    @property
    def number(self) -> int:
        return self.jobs[0].index // CHUNK_ROWS

    def digest(self) -> str:
        """A hash of all that decides its files. The versions of images stand for those."""
        told = [
            FORMAT,
            [list(job) for job in self.jobs],
            self.states.hex(),
            dict(self.common),
            [self.reasons.get(job.index) for job in self.jobs],
            dict(self.scores),
            self.extension,
            list(self.versions),
        ]
        return hashlib.sha256(canonical_json(told).encode()).hexdigest()[:16]


def columns(rows: Range, thumbnails: Sequence[Thumbnail | None]) -> dict[str, Any]:
    """The range's columns; a thumbnail for each job that has an image."""
    kinds: dict[str, int] = {}
    found: dict[str, Any] = {"first": rows.jobs[0].index, "extension": rows.extension, "states": ""}
    found |= {name: [] for name in ("ids", "prompts", "seeds", "kind", "labels")}
    more: dict[str, Any] = {}
    for at, (job, thumbnail) in enumerate(zip(rows.jobs, thumbnails, strict=True)):
        fields = {**rows.common, **json.loads(job.own_json)}
        found["ids"].append(job.id)
        found["prompts"].append(fields.pop("prompt"))
        found["seeds"].append(str(fields.pop("seed", 0)))
        kind = canonical_json({name: value for name, value in fields.items() if value is not None})
        found["kind"].append(kinds.setdefault(kind, len(kinds)))
        found["labels"].append(job.labels or None)
        state, told = _told(rows, job, rows.states[at], thumbnail)
        found["states"] += state
        if told:
            more[str(at)] = told
    return {**found, "kinds": list(kinds), "more": more, "scores": dict(rows.scores)}


def _told(rows: Range, job: PlannedJob, state: int, thumbnail: Thumbnail | None) -> tuple[str, dict[str, Any]]:
    """The letter of a row's state, and what few rows have."""
    problem = thumbnail.problem if thumbnail else "is empty, cut off, or another job's" if state == BROKEN else ""
    reason = problem or (None if state == DONE else rows.reasons.get(job.index))
    letter = "b" if problem else "d" if state == DONE else "m" if reason is None else "f"
    told = {
        "reason": reason,
        "notes": thumbnail.notes if thumbnail else None,
        "template": job.template,
        "choices": job.choices,
        "row": job.row,
    }
    return letter, {name: value for name, value in told.items() if value}
