"""Temporary files: what goes in comes out, from flushed files and from memory alike."""

import hashlib

import pytest

from promptmill.producer import spool
from promptmill.producer.job import Job
from promptmill.producer.layout import Look
from promptmill.producer.plan import plan_jobs
from promptmill.producer.presence import present_of
from promptmill.producer.spool import Heaps, Pages


def test_pages_come_back_by_their_number():
    pages = Pages()
    data = [b"", b"x" * 70_000, b"\x00\n", b"last"]
    for page in data:
        pages.append(page)
    assert [pages[number] for number in (3, 1, 0, 2)] == [data[number] for number in (3, 1, 0, 2)]
    assert len(pages) == 4
    pages.close()


@pytest.mark.parametrize("held", [1, 7, 1000])
def test_an_id_lies_in_the_heap_of_its_first_byte_in_the_order_it_came(held: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(spool, "RECORDS_HELD", held)
    digests = [hashlib.sha256(bytes([n % 200])).digest() for n in range(500)]
    heaps = Heaps()
    for number, digest in enumerate(digests):
        heaps.add(digest, number << 40)
    assert len(heaps) == 500
    for first_byte in range(256):
        wanted = [(digest[:16], n << 40) for n, digest in enumerate(digests) if digest[0] == first_byte]
        assert list(heaps.heap(first_byte)) == wanted
    heaps.close()


def test_an_image_that_is_there_is_at_its_first_place_and_at_no_other():
    one, other = Job(prompt="x", width=64), Job(prompt="y", width=128)
    with plan_jobs([other, one, one, other, one]) as plan:
        present = present_of(plan, [(job.id, Look.OURS) for job in (one, one, Job(prompt="z"))])
    assert list(present.indexes) == [0, 1, 0, 0, 0]
    assert (present.images, present.shapes) == (1, {other.shape: 0, one.shape: 1})
