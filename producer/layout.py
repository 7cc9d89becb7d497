"""What lies where in an output, and what counts as an image that is there.

    run.json                     the run's settings and counts; plan_files.py
    plan/00000.jsonl.zst         its jobs; plan_files.py
    rejects.jsonl                the rows that were skipped
    manifest.parquet             a finished run's table; promptmill.dataset
    failures.jsonl               its rows without an image, where there are any
    images/3f/3fa9….png          one object per job; .webp, .jpg or .jxl where the run asked for it
    contact-sheet.png            to look at

An image is there where its name is right, it is whole, and it is the right job's. A name alone proves nothing: what was
cut off, or is somebody else's, has it too. A bucket's listing says all of it by the metadata that the worker wrote and
by the checksum; of other files the parts that name the job, and the end, are read (image_files.py).
"""

import enum
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from promptmill.producer.image_files import PNG_JOB_KEYWORD, Container, File
from promptmill.producer.image_formats import EXTENSIONS
from promptmill.producer.job import JobId
from promptmill.producer.outputs.output import Listed

RUN_JSON = "run.json"
REJECTS = "rejects.jsonl"
MANIFEST = "manifest.parquet"
FAILURES = "failures.jsonl"
CONTACT_SHEET = "contact-sheet.png"
IMAGES = "images"

JOB_ID_KEY = "job_id"
"""An image's job in the metadata of its object."""

WORKER_KEY, RENDER_S_KEY = "worker", "render_s"
"""Who rendered an image, and in how many seconds: in the metadata alone, as the bytes are a matter of the job."""

MAX_IMAGE_METADATA = 3000
"""Bytes. Google takes 8 KiB, fake-gcs-server on a file system what an attribute of a file holds."""

_NAME = re.compile(rf"{IMAGES}/([0-9a-f]{{2}})/(\1[0-9a-f]{{30}})\.({'|'.join(EXTENSIONS)})")
_ID = re.compile(rb'"id": ?"([0-9a-f]{32})"')  # a quote within a text is escaped: these stand nowhere but at the key


def image_name(job_id: JobId, extension: str = "png") -> str:
    """The job's object under its run's output. The hash leads: a bucket dislikes sequential names."""
    return f"{IMAGES}/{job_id[:2]}/{job_id}.{extension}"


def image_metadata(
    job_id: str, run: str, index: int, record: Mapping[str, Any], *, worker: str | None, render_s: float | None
) -> dict[str, str]:
    """What an image's object says beside its bytes: whose it is, who rendered it, in how many seconds.

    And the `record` that is in the image, as ASCII JSON, where that is not too long.
    """
    who = {WORKER_KEY: worker, RENDER_S_KEY: render_s and f"{render_s:.3f}"}
    ids = {JOB_ID_KEY: job_id, "run": run, "index": str(index), **{name: said for name, said in who.items() if said}}
    whole = {**ids, PNG_JOB_KEYWORD: json.dumps(record)}
    size = sum(len(name) + len(value) for name, value in whole.items())
    return whole if size <= MAX_IMAGE_METADATA else ids


def job_of(name: str, extension: str | None = None) -> JobId | None:
    """The job whose image has this name; None for any other name, or one with another extension than asked for."""
    match = _NAME.fullmatch(name)
    return JobId(match[2]) if match and extension in (None, match[3]) else None


def page_name(number: int, digest: str = "") -> str:
    """A file of the plan under its run's output; those that a change of it made are named by a digest too."""
    return f"plan/{number:05d}{f'-{digest}' if digest else ''}.jsonl.zst"


class Look(enum.Enum):
    """What an object under an image's name turns out to be."""

    OURS = "ours"
    BROKEN = "broken"
    """Empty, or the beginning of the job's image: to be rendered anew and replaced."""
    FOREIGN = "foreign"
    """Something else, to be left alone."""


def look(listed: Listed, job_id: JobId, read: Callable[[int, int], bytes]) -> Look:
    """What is under the job's name. `read(start, length)` reads of the object, where the listing does not tell."""
    said = listed.metadata.get(JOB_ID_KEY)
    if said is not None and listed.size and listed.intact is not False:
        return Look.OURS if said == job_id else Look.FOREIGN
    return look_inside(job_id, listed.size, read, listed.name.rpartition(".")[2])


def look_inside(job_id: JobId, size: int, read: Callable[[int, int], bytes], extension: str = "png") -> Look:
    """The same, by the bytes of the beginning and the end. `size` is the object's, `extension` that of its name."""
    file, kind = File(size, read), EXTENSIONS[extension].container
    if file.is_empty:
        return Look.BROKEN
    if not file.head.startswith(kind.start):
        return Look.BROKEN if kind.start.startswith(file.head) else Look.FOREIGN
    ours = _is_of(job_id, file, kind)
    whole = kind.is_whole(file)
    if ours is None:  # cut before it says whose it is, or another tool's
        return Look.FOREIGN if whole else Look.BROKEN
    return Look.FOREIGN if not ours else Look.OURS if whole else Look.BROKEN


def _is_of(job_id: JobId, file: File, kind: Container) -> bool | None:
    """Whether an image is the job's, None where it ends before it says so."""
    for box in kind.boxes(file):
        if box.kind in kind.pixels:
            return False
        if box.kind == kind.record[0] and file.at(box.start, len(kind.record[1])) == kind.record[1]:
            found = _ID.search(file.at(box.start, box.length))
            return found[1].decode() == job_id if found else None
    return None
