"""What the worker's threads share."""

import threading

import pytest

from producer.job import Job
from producer.queue import Claim
from worker.held import Countdown, Held, Places, Rate
from worker.turns import Turns


def claim(entry: str) -> Claim:
    job = Job(prompt="a", width=64, height=64)
    return Claim(entry, job.shape, "r", 0, 1, job, "/out")


def test_what_is_removed_is_not_held_any_more():
    held = Held()
    held.add([claim("1-0"), claim("2-0")])
    held.remove([claim("1-0")])
    assert [c.entry for c in held.all()] == ["2-0"]


def test_waiting_ends_when_the_last_claim_goes():
    held = Held()
    held.add([claim("1-0")])
    assert not held.wait_until_empty(0.01)
    threading.Timer(0.05, lambda: held.remove([claim("1-0")])).start()
    assert held.wait_until_empty(10)


def test_a_batch_that_must_be_alone_waits_for_every_place():
    places = Places(3)
    assert places.take(1, 0)
    assert not places.take(3, 0.01), "another batch is in flight"
    places.give(1)
    assert places.take(3, 0)
    assert not places.take(1, 0.01), "it is alone"


def test_places_come_back_with_the_last_job_of_the_batch():
    places = Places(1)
    assert places.take(1, 0)
    left = Countdown(2, places, 1)
    left.one_less()
    assert not places.take(1, 0.01)
    left.one_less()
    assert places.take(1, 0)


def test_rate_counts_images():
    rate = Rate()
    assert rate.images_per_s() == 0
    for _ in range(3):
        rate.count()
    assert rate.images == 3
    assert rate.images_per_s() > 0


@pytest.fixture
def shapes():
    return [Job(prompt="a", width=width, height=64).shape for width in (64, 128, 192)]


def test_a_shape_keeps_its_turn_while_it_has_work(shapes):
    turns = Turns()
    first = turns.next(shapes)
    assert [turns.next(shapes) for _ in range(5)] == [first] * 5


def test_a_shape_without_work_gives_its_turn_away(shapes):
    turns = Turns()
    first = turns.next(shapes)
    others = [shape for shape in shapes if shape != first]
    assert turns.next(others) in others
    assert turns.next([]) is None


def test_every_shape_gets_its_turn(shapes, monkeypatch):
    monkeypatch.setattr("worker.turns.TURN_S", -1.0)  # every turn is over at once
    turns = Turns()
    assert {turns.next(shapes) for _ in shapes} == set(shapes)


def test_a_refused_model_is_left_to_others(shapes):
    turns = Turns()
    turns.refuse(shapes[0].model)
    other = Job(prompt="a", model="org/other").shape
    assert turns.next(shapes) is None
    assert turns.next([*shapes, other]) == other
