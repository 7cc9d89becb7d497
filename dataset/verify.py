"""Whether a packed run is what it says: plan, manifest, images and shards against each other, every byte by digest.

`_SUCCESS` holds the digests of what is written once (run.json, the plan, the manifest, data/shards.json), the manifest
those of the images, and data/shards.json those of the shards. Without `_SUCCESS` the images are held against the plan.
"""

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from promptmill.dataset.images import ImageError
from promptmill.dataset.manifest import MANIFEST, READERS, whole_image
from promptmill.dataset.pack import SHARDS_JSON
from promptmill.dataset.seal import SUCCESS, SealError, read_seal, sha256_of
from promptmill.producer.errors import PlanError
from promptmill.producer.layout import IMAGES, image_name
from promptmill.producer.outputs.output import ObjectNotFound, Output
from promptmill.producer.plan import Plan
from promptmill.producer.plan_files import load_plan
from promptmill.producer.plan_lines import PlannedJob


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: the object's name in the run's output, and what is wrong with it."""

    name: str
    problem: str
    index: int | None = None


KNOWN = ("run.json", "plan/", "images/", "data/", "gallery/", MANIFEST, SUCCESS, "rejects.jsonl", "contact-sheet")
"""What a run's output may hold; anything else is strange."""


def verify(output: Output) -> Iterator[Finding]:
    """Everything that is wrong with a run's output; nothing where all is well. Raises OutputError."""
    try:
        sealed = read_seal(output)
    except SealError as error:
        yield Finding(SUCCESS, str(error))
        sealed = {}
    yield from _digests(output, sealed)
    try:
        plan = load_plan(output)
    except PlanError as error:
        yield Finding("run.json", str(error))
        return
    with plan:
        try:
            yield from _images(output, plan, _manifest_digests(output) if MANIFEST in sealed else {})
        except PlanError as error:
            yield Finding("run.json", str(error))
        yield from _strange(output, plan)
    if SHARDS_JSON in sealed:
        yield from _shards(output)


def _digests(output: Output, sealed: dict[str, str]) -> Iterator[Finding]:
    with ThreadPoolExecutor(READERS, "verify") as readers:
        for name, found in zip(sealed, readers.map(lambda name: sha256_of(output, name), sealed), strict=True):
            yield from _compared(name, found, sealed[name])


def _compared(name: str, found: str | None, expected: str, index: int | None = None) -> Iterator[Finding]:
    if found is None:
        yield Finding(name, "is gone", index)
    elif found != expected:
        yield Finding(name, "has other bytes than when it was written", index)


def _manifest_digests(output: Output) -> dict[int, str | None]:
    """The images' digests by index, None for a job without one, where the manifest can be read."""
    try:
        table = pq.read_table(pa.BufferReader(output.get(MANIFEST)), columns=["index", "sha256"])
    except (ObjectNotFound, pa.ArrowException, OSError):
        return {}  # told by its digest
    return dict(zip(table["index"].to_pylist(), table["sha256"].to_pylist(), strict=True))


def _images(output: Output, plan: Plan, digests: dict[int, str | None]) -> Iterator[Finding]:
    with ThreadPoolExecutor(READERS, "verify") as readers:
        first = (job for job in plan if job.first)
        for found in readers.map(lambda job: list(_image(output, plan, job, digests)), first):
            yield from found


def _image(output: Output, plan: Plan, planned: PlannedJob, digests: dict[int, str | None]) -> Iterator[Finding]:
    name = image_name(planned.id)
    try:
        facts = whole_image(output.get(name), plan.whole(planned), decode=True)
    except ObjectNotFound:
        if digests.get(planned.index, "") is not None:  # else the manifest says that there is none
            yield Finding(name, "is missing", planned.index)
    except ImageError as error:
        yield Finding(name, str(error), planned.index)
    else:
        expected = digests.get(planned.index, facts.sha256)
        if expected is None:
            yield Finding(name, "has come since the run was packed", planned.index)
        else:
            yield from _compared(name, facts.sha256, expected, planned.index)


def _strange(output: Output, plan: Plan) -> Iterator[Finding]:
    images = {image_name(job.id) for job in plan if job.first}
    for name in output.list():
        if not name.startswith(KNOWN):
            yield Finding(name, "is not promptmill's")
        elif name.startswith(f"{IMAGES}/") and name not in images:
            yield Finding(name, "is not an image of this run")


def _shards(output: Output) -> Iterator[Finding]:
    try:
        shards: Iterable[dict[str, Any]] = json.loads(output.get(SHARDS_JSON))["shards"]
    except (ObjectNotFound, ValueError, KeyError):
        return  # told by its digest
    known = {str(shard["name"]): str(shard["sha256"]) for shard in shards}
    for name, expected in known.items():
        yield from _compared(name, sha256_of(output, name), expected)
    for name in output.list("data/"):
        if name not in known and name != SHARDS_JSON:
            yield Finding(name, "is no shard of this run")
