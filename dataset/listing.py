"""What a listing tells of a run's output: the images by their ids, and what does not belong there.

Ten million images are held as 24 bytes each in temporary files, and looked at in 256 heaps.
"""

import base64
import re
import struct
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any

from promptmill.dataset.card import CARD
from promptmill.dataset.croissant import CROISSANT
from promptmill.dataset.findings import Finding
from promptmill.dataset.manifest import MANIFEST
from promptmill.dataset.pack import RECORD, SHARDS_JSON
from promptmill.dataset.scores import SCORES
from promptmill.dataset.seal import SUCCESS
from promptmill.producer.job import JobId
from promptmill.producer.layout import CONTACT_SHEET, FAILURES, JOB_ID_KEY, REJECTS, RUN_JSON, job_of
from promptmill.producer.outputs.output import Listed, Output
from promptmill.producer.plan import Plan
from promptmill.producer.spool import Heaps

SET_ASIDE = "set-aside/"
"""Where `repair` brings what it takes away from its name."""

KNOWN = {RUN_JSON, REJECTS, FAILURES, MANIFEST, SCORES, SUCCESS, SHARDS_JSON, RECORD, CARD, CROISSANT}
KNOWN |= {CONTACT_SHEET}
KNOWN_PREFIXES = (SET_ASIDE, "gallery/", "contact-sheet")
_PAGE = re.compile(r"plan/\d{5}(-[0-9a-f]{12})?\.jsonl\.zst")

Sum = tuple[int, int]
"""Size in bytes and crc32c of an object; the sum is 0 in a folder, which has none."""


@dataclass
class Listing:
    """The images there, and other objects by name. `summed`: each image has its checksum."""

    images: Heaps = field(default_factory=Heaps)
    others: dict[str, Listed] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    summed: bool = True

    def sums(self, first_byte: int) -> dict[JobId, Sum]:
        """Those of the images whose ids begin with this byte."""
        found = self.images.heap(first_byte)
        return {JobId(digest.hex()): (number >> 32, number & 0xFFFFFFFF) for digest, number in found}


def read_listing(
    output: Output, pages: Container[str], shards: Container[str], plan: Plan, run: Mapping[str, Any]
) -> Listing:
    """List the output once. `pages` and `shards` are the names of those that the run has. Raises OutputError."""
    listing, grown = Listing(), "earlier" in run  # then there may be files of earlier plans
    for listed in output.scan():
        job_id = job_of(listed.name, plan.encoding.extension)
        if job_id is not None:
            _add_image(listing, job_id, listed)
            continue
        earlier = grown and _PAGE.fullmatch(listed.name)
        if listed.name in KNOWN or listed.name in pages or listed.name in shards or earlier:
            listing.others[listed.name] = listed
        elif not listed.name.startswith(KNOWN_PREFIXES):
            listing.findings.append(Finding(listed.name, _strange(listed.name), kind="foreign"))
    return listing


def _strange(name: str) -> str:
    for prefix, what in (("data/", "a shard"), ("plan/", "a file of the plan"), ("images/", "an image")):
        if name.startswith(prefix):
            return f"is not {what} of this run"
    return "is not promptmill's"


def _add_image(listing: Listing, job_id: JobId, listed: Listed) -> None:
    crc32c = 0 if listed.crc32c is None else sum_of(listed.crc32c)
    listing.summed &= listed.crc32c is not None
    listing.images.add(bytes.fromhex(job_id), min(listed.size, 0xFFFFFFFF) << 32 | crc32c)
    said = listed.metadata.get(JOB_ID_KEY)
    if said is not None and said != job_id:
        listing.findings.append(Finding(listed.name, f"is the image of another job: {said}", kind="damaged"))


def sum_of(crc32c: str) -> int:
    """A checksum as Cloud Storage writes it, as a number."""
    (number,) = struct.unpack(">I", base64.b64decode(crc32c))
    return int(number)


def foreign_images(listing: Listing, plan: Plan) -> list[Finding]:
    """Images of jobs that the plan does not have."""
    found = []
    for first_byte in range(256):
        ours = {digest for digest, _ in plan.heaps.heap(first_byte)}
        there = (digest for digest, _ in listing.images.heap(first_byte))
        names = (plan.image_name(JobId(digest.hex())) for digest in there if digest not in ours)
        found += [Finding(name, "is not an image of this run", kind="foreign") for name in names]
    return found
