"""A run's images as WebDataset shards: `data/00000.tar`, each of a fixed range of the run's indexes.

A sample is `INDEX.png`, `INDEX.json` (the job, its labels) and `INDEX.txt` (the prompt); INDEX has nine digits.
What failed or is missing leaves a hole, which `data/shards.json` names. A shard is the same bytes whenever it is built
of the same images, so packing again writes only what is not there.
"""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

from promptmill.dataset.images import ImageError
from promptmill.dataset.manifest import whole_image
from promptmill.dataset.parallel import READERS
from promptmill.dataset.tar import Member, write_tar
from promptmill.producer.job import Job, canonical_json
from promptmill.producer.layout import image_name
from promptmill.producer.outputs.output import ObjectNotFound, Output
from promptmill.producer.plan import Plan
from promptmill.producer.plan_lines import PlannedJob

SHARD_SIZE = 10_000
"""Indexes per shard."""

SHARDS_JSON = "data/shards.json"


@dataclass(frozen=True)
class Shard:
    """One tar: the range of indexes that it stands for, its samples, and the indexes without one."""

    name: str
    first: int
    end: int
    samples: int
    bytes: int
    sha256: str
    holes: tuple[int, ...]


def shard_name(number: int) -> str:
    return f"data/{number:05d}.tar"


def key(index: int) -> str:
    """A sample's name within its shard."""
    return f"{index:09d}"


def build_shard(file: Path, output: Output, plan: Plan, number: int, size: int) -> Shard:
    """Write shard `number` of a run to a file. Raises OutputError, PlanError."""
    first, end = number * size, min((number + 1) * size, plan.jobs)
    holes: list[int] = []
    with file.open("wb") as tar:
        write_tar(tar, _members(output, plan, first, end, holes))
    with file.open("rb") as tar:
        digest = hashlib.file_digest(tar, "sha256").hexdigest()
    samples = end - first - len(holes)
    return Shard(shard_name(number), first, end, samples, file.stat().st_size, digest, tuple(holes))


def _members(output: Output, plan: Plan, first: int, end: int, holes: list[int]) -> Iterator[Member]:
    jobs = islice(plan.since(first), end - first)
    with ThreadPoolExecutor(READERS, "pack") as readers:
        while batch := list(islice(jobs, READERS)):  # no more images in memory than are read at once
            for planned, members in zip(batch, readers.map(lambda job: _sample(output, plan, job), batch), strict=True):
                if not members:
                    holes.append(planned.index)
                yield from members


def _sample(output: Output, plan: Plan, planned: PlannedJob) -> list[Member]:
    """The members of one sample; none where its image is not there, or not whole."""
    job = plan.whole(planned)
    try:
        data = output.get(image_name(planned.id))
        whole_image(data, job)
    except (ObjectNotFound, ImageError):
        return []
    name = key(planned.index)
    return [
        (f"{name}.json", canonical_json(sample_record(planned, job)).encode()),
        (f"{name}.png", data),
        (f"{name}.txt", job.prompt.encode()),
    ]


ALWAYS = tuple(name for name, hint in get_type_hints(Job).items() if NoneType not in get_args(hint))
"""A job's fields that are never null: readers infer a column's type from the first samples."""


def sample_record(planned: PlannedJob, job: Job) -> dict[str, Any]:
    """What `INDEX.json` holds: the same keys, of the same types, in every sample. `job` is JSON of all fields."""
    fields = {name: getattr(job, name) for name in ALWAYS}
    return {"index": planned.index, "id": planned.id, **fields, "job": job.to_json(), "labels": planned.labels or {}}


def pack(output: Output, plan: Plan, scratch: Path, size: int = SHARD_SIZE) -> Iterator[Shard]:
    """Write the shards that the output lacks, then `shards.json`; yield each shard once it is there.

    Raises OutputConflict where shards of another size, or of other images, lie there; OutputError, PlanError.
    """
    shards = []
    for number in range(-(-plan.jobs // size)):
        file = scratch / f"{number:05d}.tar"
        shard = build_shard(file, output, plan, number, size)
        output.put_file(shard.name, file, content_type="application/x-tar")
        file.unlink()
        shards.append(shard)
        yield shard
    index = {"shard_size": size, "shards": [asdict(shard) for shard in shards]}
    output.put_once(SHARDS_JSON, f"{canonical_json(index)}\n".encode(), content_type="application/json")
