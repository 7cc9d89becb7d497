"""The images by a listing alone: sizes, and a bucket's own checksums, against the manifest."""

from collections.abc import Iterator

from promptmill.dataset.findings import Finding
from promptmill.dataset.listing import Listing, Sum, sum_of
from promptmill.dataset.manifest import MANIFEST
from promptmill.dataset.stored_manifest import ManifestError
from promptmill.dataset.subject import Subject
from promptmill.dataset.verify_images import check_absence, check_presence
from promptmill.producer.job import JobId
from promptmill.producer.plan_builder import SHAPE_BITS
from promptmill.producer.spool import Heaps

_COLUMNS = ("id", "bytes", "crc32c")


def check_listed_images(subject: Subject, listing: Listing) -> Iterator[Finding]:
    """What a listing shows to be wrong with images. Memory does not grow with the run. Raises OutputError."""
    packed = Heaps()
    try:
        try:
            _read_sums(subject, packed)
        except ManifestError as error:
            yield Finding(MANIFEST, str(error), kind="damaged")
            return
        for first_byte in range(256):
            yield from _check_heap(subject, listing, packed, first_byte)
    finally:
        packed.close()


def _read_sums(subject: Subject, packed: Heaps) -> None:
    for row in subject.manifest.rows(_COLUMNS) if subject.manifest else ():
        if row["bytes"] is not None:
            packed.add(bytes.fromhex(row["id"]), min(row["bytes"], 0xFFFFFFFF) << 32 | sum_of(row["crc32c"]))


def _check_heap(subject: Subject, listing: Listing, packed: Heaps, first_byte: int) -> Iterator[Finding]:
    there = listing.sums(first_byte)
    expected = {digest: (number >> 32, number & 0xFFFFFFFF) for digest, number in packed.heap(first_byte)}
    seen: set[bytes] = set()
    for digest, number in subject.plan.heaps.heap(first_byte):
        if digest in seen:  # the image of an index before
            continue
        seen.add(digest)
        name, index = subject.plan.image_name(JobId(digest.hex())), number >> SHAPE_BITS
        found, told = there.get(JobId(digest.hex())), expected.get(digest)
        if found is None:
            row = None if subject.manifest is None else {"state": "failed" if told is None else "done"}
            yield from check_absence(subject, name, index, row)
        else:
            yield from _check_sum(subject, name, index, found, told, listing.summed)
            yield from check_presence(subject, name, index)


def _check_sum(
    subject: Subject, name: str, index: int, found: Sum, told: Sum | None, summed: bool
) -> Iterator[Finding]:
    if not found[0]:
        yield Finding(name, "is empty", index, "damaged")
    elif told is None and subject.manifest is not None:
        yield Finding(name, "has come since the run was packed", index)
    elif told is not None and found[0] != told[0]:
        yield Finding(name, f"has {found[0]} bytes, expected {told[0]}", index)
    elif told is not None and summed and found[1] != told[1]:
        yield Finding(name, "has other bytes than when it was packed", index)
