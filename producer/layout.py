"""What lies where in an output, and what counts as an image that is there.

    run.json                     the run's settings and counts; plan_files.py
    plan/00000.jsonl.zst         its jobs; plan_files.py
    rejects.jsonl                the rows that were skipped
    manifest.parquet             a finished run's table; promptmill.dataset
    failures.jsonl               its rows without an image, where there are any
    images/3f/3fa9….png          one object per job
    contact-sheet.png            to look at

An image is there where its name is right, it is whole, and it is the right job's. A name alone proves nothing: what was
cut off, or is somebody else's, has it too. A bucket's listing says all of it by the metadata that the worker wrote and
by the checksum; of other files the beginning, which names the job, and the end are read.
"""

import enum
import json
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

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

PNG_JOB_KEYWORD = "promptmill"
"""The text chunk of a PNG that holds its job as JSON, before the pixels."""

HEAD_BYTES = 4096  # a page of a file system; the job's id comes within the first kilobyte

_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
_NAME = re.compile(rf"{IMAGES}/([0-9a-f]{{2}})/(\1[0-9a-f]{{30}})\.png")
_ID = re.compile(rb'"id":"([0-9a-f]{32})"')  # a quote within a text is escaped: these stand nowhere but at the key


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


def job_of(name: str) -> JobId | None:
    """The job whose image has this name; None for any other name."""
    match = _NAME.fullmatch(name)
    return JobId(match[2]) if match else None


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
    return look_inside(job_id, listed.size, read)


def look_inside(job_id: JobId, size: int, read: Callable[[int, int], bytes]) -> Look:
    """The same, by the bytes of the beginning and the end. `size` is that of the object."""
    head = read(0, HEAD_BYTES)
    if not head.strip(b"\0"):  # also what some file systems leave of a file after a power cut
        return Look.BROKEN
    ours = _is_of(job_id, head)
    if ours is None and size > len(head):
        ours = _is_of(job_id, read(0, size))
    if ours is False:
        return Look.FOREIGN
    whole = ours and read(max(size - len(_PNG_END), 0), len(_PNG_END)) == _PNG_END
    return Look.OURS if whole else Look.BROKEN


def _is_of(job_id: JobId, head: bytes) -> bool | None:
    """Whether a PNG that begins so is the job's, None where it ends before it says so."""
    if not head.startswith(_PNG_START):
        return None if _PNG_START.startswith(head) else False
    for kind, data in _chunks(head):
        if kind == b"iTXt" and data.startswith(PNG_JOB_KEYWORD.encode() + b"\0"):
            found = _ID.search(data)
            return found[1].decode() == job_id if found else None
        if kind in (b"IDAT", b"IEND"):
            return False
    return None


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The kinds and contents of a PNG's chunks, as far as they are there."""
    at = len(_PNG_START)
    while at + 8 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, at)
        yield kind, png[at + 8 : at + 8 + length]
        at += 12 + length  # with the checksum
