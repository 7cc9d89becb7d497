"""What the worker's threads share."""

import threading

from promptmill.producer.job import Job
from promptmill.producer.queue.queue import Claim
from promptmill.worker.in_flight import InFlight, Latch, Rate, Slots


def claim(entry: str, run: str = "r") -> Claim:
    job = Job(prompt="a", width=64, height=64)
    return Claim(entry, job.shape, run, 0, 1, job, "/out")


def test_what_is_removed_is_not_held_any_more():
    held = InFlight()
    held.add([claim("1-0"), claim("2-0")])
    held.remove([claim("1-0")])
    assert [c.entry for c in held.all()] == ["2-0"]


def test_entries_of_two_runs_with_one_number_are_two_claims():
    held = InFlight()
    held.add([claim("1-0"), claim("1-0", run="other")])
    held.remove([claim("1-0")])
    assert [c.run for c in held.all()] == ["other"]


def test_waiting_ends_when_the_last_claim_goes():
    held = InFlight()
    held.add([claim("1-0")])
    assert not held.wait_until_empty(0.01)
    threading.Timer(0.05, lambda: held.remove([claim("1-0")])).start()
    assert held.wait_until_empty(10)


def test_a_batch_that_must_be_alone_waits_for_every_place():
    slots = Slots(3)
    assert slots.take(1, 0)
    assert not slots.take(3, 0.01), "another batch is in flight"
    slots.give(1)
    assert slots.take(3, 0)
    assert not slots.take(1, 0.01), "it is alone"


def test_places_come_back_with_the_last_job_of_the_batch():
    slots = Slots(1)
    assert slots.take(1, 0)
    left = Latch(2, slots, 1)
    left.one_less()
    assert not slots.take(1, 0.01)
    left.one_less()
    assert slots.take(1, 0)


def test_rate_counts_images():
    rate = Rate()
    assert rate.images_per_s() == 0
    for _ in range(3):
        rate.count()
    assert rate.images == 3
    assert rate.images_per_s() > 0
