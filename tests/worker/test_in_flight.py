"""Slots and claims, as the worker's threads share them."""

import threading

import pytest

from promptmill.producer.job import Job
from promptmill.producer.queue.queue import Claim
from promptmill.worker.in_flight import DEVICE_DEPTH, InFlight


def claim(entry: str, run: str = "r") -> Claim:
    job = Job(prompt="a", width=64, height=64)
    return Claim(entry, job.shape, run, 0, 1, job, "/out")


def holding(in_flight: InFlight, *claims: Claim) -> None:
    with in_flight.slot(0) as slot:
        assert slot is not None
        in_flight.hold(slot, claims)


def test_what_leaves_is_not_held_any_more_however_its_block_ends():
    first, second, third = claim("1-0"), claim("2-0"), claim("2-0", run="other")
    in_flight = InFlight(1)
    holding(in_flight, first, second, third)
    with in_flight.leaving([first]):
        assert first in in_flight.held(), "until the end of the block"
    with pytest.raises(ZeroDivisionError), in_flight.leaving([third]):
        raise ZeroDivisionError
    assert in_flight.held() == [second]
    assert in_flight.remaining([first, second, third]) == [second]


def test_a_claim_that_another_worker_has_is_finished_but_not_renewed():
    one = claim("1-0")
    in_flight = InFlight(1)
    holding(in_flight, one)
    in_flight.lose([one])
    assert in_flight.held() == []
    assert not in_flight.wait_until_empty(0.01)
    with in_flight.leaving([one]):
        pass
    assert in_flight.wait_until_empty(0)


def test_waiting_ends_when_the_last_claim_leaves():
    one = claim("1-0")
    in_flight = InFlight(1)
    holding(in_flight, one)
    assert not in_flight.wait_until_empty(0.01)

    def leave() -> None:
        with in_flight.leaving([one]):
            pass

    threading.Timer(0.05, leave).start()
    assert in_flight.wait_until_empty(10)


def test_a_slot_is_free_again_when_the_last_claim_of_the_batch_has_left():
    first, second = claim("1-0"), claim("2-0")
    in_flight = InFlight(1)
    holding(in_flight, first, second)
    for one in (first, second):
        with in_flight.slot(0) as slot:
            assert slot is None
        with in_flight.leaving([one]), in_flight.leaving([one]):  # twice is once
            pass
    with in_flight.slot(0) as slot:
        assert slot is not None


def test_a_slot_that_nothing_was_put_into_is_free_at_the_end_of_its_block():
    in_flight = InFlight(1)
    with pytest.raises(ZeroDivisionError), in_flight.slot(0):
        raise ZeroDivisionError
    with in_flight.slot(0) as slot:
        assert slot is not None


def test_a_batch_that_must_be_alone_waits_for_every_slot_and_gives_all_of_them_back():
    neighbour, alone = claim("1-0"), claim("2-0")
    in_flight = InFlight(3)
    holding(in_flight, neighbour)
    with in_flight.slot(0) as slot:
        assert slot is not None
        in_flight.hold(slot, [alone])
        assert not in_flight.make_alone(slot, 0.01), "another batch is in flight"
        with in_flight.leaving([neighbour]):
            pass
        assert in_flight.make_alone(slot, 0)
    with in_flight.slot(0.01) as other:
        assert other is None, "it is alone"
    with in_flight.leaving([alone]):
        pass
    with in_flight.slot(0) as a, in_flight.slot(0) as b, in_flight.slot(0) as c:
        assert None not in (a, b, c)


def test_a_device_has_few_batches_waiting_whatever_is_being_uploaded():
    claims = [claim(f"{number}-0") for number in range(DEVICE_DEPTH + 2)]
    in_flight = InFlight(DEVICE_DEPTH + 1)
    for one in claims[:DEVICE_DEPTH]:
        holding(in_flight, one)
    with in_flight.slot(0) as slot:
        assert slot is None, "they are on the device"
    in_flight.fetched([claims[0]])  # its images are on their way, and it is held
    in_flight.fetched([claims[0]])  # twice is once
    holding(in_flight, claims[DEVICE_DEPTH])
    in_flight.fetched([claims[1]])
    with in_flight.slot(0) as slot:
        assert slot is None, "all slots are taken"
    with in_flight.leaving([claims[0]]):
        pass
    holding(in_flight, claims[-1])
    assert in_flight.held() == claims[1:]


def test_a_batch_that_is_lost_leaves_its_place_on_the_device():
    first, second = claim("1-0"), claim("2-0")
    in_flight = InFlight(DEVICE_DEPTH)
    for _ in range(DEVICE_DEPTH):
        holding(in_flight, first)
        holding(in_flight, second)
        with in_flight.leaving([first, second]):
            pass
    with in_flight.slot(0) as slot:
        assert slot is not None
