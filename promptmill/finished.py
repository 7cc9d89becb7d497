"""A run's finished images, each once, as they land: by differences of the ledger's bitmap; nothing is listed.

Memory is one bit per job and a few pages of the plan: those whose jobs finish now.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptmill.producer.image_formats import Encoding
from promptmill.producer.job import Job, JobId
from promptmill.producer.layout import image_name
from promptmill.producer.outputs.output import Output
from promptmill.producer.plan_builder import JOBS_PER_FILE, unpack
from promptmill.producer.plan_files import page_names, read_run
from promptmill.producer.submit import done_bits

if TYPE_CHECKING:
    import redis

BATCH = 1000  # images told at once, at most
PAGES_KEPT = 4  # files of the plan, of some megabytes each
_CHANGED = re.compile(rb"[^\x00]")


@dataclass(frozen=True, slots=True)
class FinishedImage:
    """An image that is safe in the output. `index` is its job's first index in the run."""

    index: int
    id: JobId
    url: str
    job: Job
    labels: Mapping[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> Path | None:
        """The file, where the output is a folder."""
        return None if "://" in self.url else Path(self.url)


class Landing:
    """One listener's index in a run: what it was told already."""

    def __init__(self, client: "redis.Redis", run: str, run_output: Output) -> None:
        self._client = client
        self._run = run
        self._output = run_output
        self._told = b""
        self._page = lru_cache(PAGES_KEPT)(self._read_page)
        self._look_at_plan()

    def new(self) -> Iterator[list[FinishedImage]]:
        """What has landed since the last call, in batches, in the run's order."""
        now = done_bits(self._client, self._run)
        indexes = new_bits(self._told, now)
        while batch := [self._image(index) for index in islice(indexes, BATCH)]:
            yield batch
        self._told = either(self._told, now)

    def _image(self, index: int) -> FinishedImage:
        if index >= self._jobs:  # the run has grown
            self._look_at_plan()
        number, line = divmod(index, self._page_jobs)
        said = json.loads(self._page(self._pages[number])[line])
        url = f"{self._output.url}/{image_name(said['id'], self._extension)}"
        return FinishedImage(index, said["id"], url, Job(**said["job"]), said.get("labels", {}))

    def _look_at_plan(self) -> None:
        run = read_run(self._output) or {"plan_files": 0}
        self._pages, self._jobs = page_names(run), int(run.get("jobs", 0))
        self._extension = Encoding.of_run(run).extension
        self._page_jobs = int(run.get("jobs_per_plan_file", JOBS_PER_FILE))

    def _read_page(self, name: str) -> list[str]:
        return unpack(self._output.get(name))


def new_bits(before: bytes, now: bytes) -> Iterator[int]:
    """Places of the bits that are set in `now` and not in `before`; Redis counts from a byte's highest bit."""
    size = max(len(before), len(now))
    fresh = _number(now, size) & ~_number(before, size)
    for found in _CHANGED.finditer(fresh.to_bytes(size, "big")):
        byte = found[0][0]
        yield from (8 * found.start() + bit for bit in range(8) if byte & (0x80 >> bit))


def either(one: bytes, other: bytes) -> bytes:
    """The bits that are set in either."""
    size = max(len(one), len(other))
    return (_number(one, size) | _number(other, size)).to_bytes(size, "big")


def _number(bits: bytes, size: int) -> int:
    return int.from_bytes(bits.ljust(size, b"\x00"), "big")
