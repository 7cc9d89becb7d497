"""Turns: fewest compiles, urgent first, and nobody waits for ever. A clock that the test turns; no Redis."""

from collections.abc import Iterable
from itertools import pairwise

import pytest

from promptmill.producer.job import Shape
from promptmill.producer.queue.queue import Ready
from promptmill.worker import shape_scheduler
from promptmill.worker.programs import Trouble
from promptmill.worker.shape_scheduler import AHEAD_S, REFUSED_S, TURN_S, Turns

A, B, C = (Shape("model", 64, 64 * n, True) for n in (1, 2, 3))
OTHER = Shape("other", 64, 64, True)
NORMAL, URGENT = 1, 2


class Clock:
    """Time as the worker sees it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(shape_scheduler, "time", clock)
    return clock


def ready(*shapes: Shape, waited_s: float = 0.0, priority: int = NORMAL) -> list[Ready]:
    return [Ready(shape, priority, waited_s) for shape in shapes]


def to_make(own: Turns, ready: list[Ready], at_hand: Iterable[Shape] = (), **known: dict[Shape, int]) -> Shape | None:
    """What `own` would make, with programs for `at_hand`; `trouble` and `deaths` of the others, else 1 and 0."""
    trouble, deaths = known.get("trouble", {}), known.get("deaths", {})
    return own.to_make(
        ready,
        lambda shape: Trouble.NONE if shape in set(at_hand) else Trouble(trouble.get(shape, 1)),
        lambda shapes: {shape: deaths.get(shape, 0) for shape in shapes},
    )


def simulate(clock: Clock, wanted: list[tuple[Shape, str]], seconds: float, batch_s: float = 2.0) -> list[Shape]:
    """One worker, and shapes (each with its run) that always have work, as Redis would tell of them."""
    own, served, runs = Turns(), {shape: clock.now for shape, _ in wanted}, {run: clock.now for _, run in wanted}
    seen = []
    for _ in range(int(seconds / batch_s)):
        looks = [Ready(shape, NORMAL, clock.now - served[shape], clock.now - runs[run]) for shape, run in wanted]
        shape = own.next(looks)
        assert shape is not None
        seen.append(shape)
        served[shape] = runs[dict(wanted)[shape]] = clock.now
        clock.now += batch_s
    return seen


def changes(seen: list[Shape]) -> int:
    return sum(one != other for one, other in pairwise(seen))


def longest_wait(seen: list[Shape], shape: Shape) -> int:
    """Batches between two of a shape."""
    at = [-1, *[number for number, one in enumerate(seen) if one == shape], len(seen)]
    return max(later - earlier for earlier, later in pairwise(at))


def test_there_is_nothing_to_render(clock):
    assert Turns().next([]) is None


def test_a_worker_stays_with_its_shape_while_it_has_work_and_others_are_served_elsewhere(clock):
    own = Turns()
    assert own.next(ready(B)) == B
    for _ in range(100):
        clock.now += 10
        assert own.next(ready(A, B, C, waited_s=TURN_S - 1)) == B


def test_a_shape_that_waits_too_long_has_its_turn_when_this_one_is_over(clock):
    own = Turns()
    own.next(ready(B))
    clock.now += TURN_S - 1
    assert own.next(ready(A, B, waited_s=TURN_S + 5)) == B, "its own turn is not over"
    clock.now += 2
    assert own.next(ready(B) + ready(A, waited_s=TURN_S + 8)) == A


def test_all_shapes_have_turns_of_their_own_length_and_change_seldom(clock):
    seen = simulate(clock, [(A, "a"), (B, "b"), (C, "c")], 600)
    assert set(seen) == {A, B, C}
    assert changes(seen) <= 600 / TURN_S
    batches_a_turn = TURN_S / 2.0
    assert all(longest_wait(seen, shape) <= 2 * (batches_a_turn + 2) for shape in (A, B, C))


def test_one_shape_alone_is_never_left(clock):
    assert changes(simulate(clock, [(A, "a")], 300)) == 0


def test_a_run_of_many_shapes_has_no_more_turns_than_a_run_of_one(clock):
    seen = simulate(clock, [(A, "many"), (B, "many"), (C, "one")], 1200)
    assert 0.4 < seen.count(C) / len(seen) < 0.6
    assert seen.count(A) and seen.count(B)


def test_what_is_urgent_has_the_next_batch_and_is_compiled_at_once(clock):
    own = Turns()
    own.next(ready(A))
    urgent = ready(A) + ready(B, priority=URGENT)
    assert own.next(urgent) == B
    assert to_make(own, urgent, [A], trouble={B: Trouble.EVICT}) == B
    assert own.next(ready(A, waited_s=10 * TURN_S) + ready(B, priority=URGENT)) == B, "it waits for no turn of the rest"
    assert own.next(ready(A, B)) == B, "and there is no way back while there is work"
    assert own.next(ready(A)) == A


def test_nothing_is_compiled_for_shapes_that_are_at_hand_or_served_elsewhere(clock):
    own = Turns()
    own.next(ready(A))
    assert to_make(own, [], [A]) is None
    assert to_make(own, ready(A), [A]) is None
    assert to_make(own, ready(A, B, waited_s=AHEAD_S - 1), [A]) is None


def test_while_one_shape_is_rendered_the_program_of_the_next_is_made_ahead(clock):
    """One at a time, for a model that is loaded: what is made ahead of need must not push out what is needed."""
    own = Turns()
    own.next(ready(A))
    looks = ready(A) + ready(B, C, waited_s=AHEAD_S + 1)
    assert to_make(own, looks, [A]) in (B, C)
    assert to_make(own, looks, [A, B]) is None, "there is one to go on with"
    for trouble in (Trouble.LOAD, Trouble.EVICT):
        assert to_make(own, ready(A) + ready(OTHER, waited_s=AHEAD_S + 1), [A], trouble={OTHER: trouble}) is None
    assert to_make(own, ready(B, waited_s=AHEAD_S + 1), [A]) == B, "when the first is over nothing is at hand"


def test_a_shape_that_waits_too_long_is_compiled_beside_what_is_rendered(clock):
    own = Turns()
    own.next(ready(A))
    assert to_make(own, ready(A) + ready(B, waited_s=TURN_S + 1), [A]) == B
    assert own.next(ready(A)) == A, "which goes on meanwhile"


def test_a_model_is_evicted_only_when_the_turn_is_over(clock):
    own = Turns()
    own.next(ready(A))
    looks = ready(A) + ready(OTHER, waited_s=TURN_S + 1)
    assert to_make(own, looks, [A], trouble={OTHER: Trouble.EVICT}) is None
    assert to_make(own, looks, [A], trouble={OTHER: Trouble.LOAD}) == OTHER, "where there is room for both"
    clock.now += TURN_S + 1
    assert to_make(own, looks, [A], trouble={OTHER: Trouble.EVICT}) == OTHER


def test_with_nothing_at_hand_the_least_trouble_is_made_first(clock):
    looks = ready(B, waited_s=20) + ready(C, waited_s=5)
    assert to_make(Turns(), looks, trouble={B: Trouble.EVICT}) == C
    assert to_make(Turns(), looks) == B, "of equals the one that waits longer"


def test_shapes_that_killed_a_worker_come_after_those_that_did_not(clock):
    looks = ready(A, waited_s=20) + ready(B, waited_s=5)
    assert to_make(Turns(), looks, deaths={A: 1}) == B
    assert to_make(Turns(), looks, deaths={A: 1}, trouble={B: Trouble.EVICT}) == B
    own = Turns()
    own.next(ready(C))
    clock.now += TURN_S + 1
    looks = ready(C) + ready(A, waited_s=90) + ready(B, waited_s=50)
    assert to_make(own, looks, [C], deaths={A: 1}) == B
    assert to_make(own, ready(C) + ready(A, waited_s=90), [C], deaths={A: 2}) == A, "and yet have their turn"


def test_of_shapes_at_hand_the_longest_waiting_is_next(clock):
    own = Turns()
    own.next(ready(A))
    assert own.next(ready(B, waited_s=5) + ready(C, waited_s=20)) == C


def test_a_model_that_was_refused_is_left_to_others_for_a_while(clock):
    own = Turns()
    assert to_make(own, ready(OTHER, priority=URGENT)) == OTHER
    own.refuse("other")
    assert to_make(own, ready(OTHER, priority=URGENT) + ready(A)) == A
    assert to_make(own, ready(OTHER)) is None
    clock.now += REFUSED_S + 1
    assert to_make(own, ready(OTHER)) == OTHER


def test_workers_that_were_refused_together_do_not_try_again_together(clock):
    farm = [Turns() for _ in range(40)]
    for own in farm:
        own.refuse("other")
    clock.now += REFUSED_S * 3 / 4
    assert {to_make(own, ready(OTHER)) for own in farm} == {None, OTHER}


def test_a_shape_that_was_refused_leaves_the_models_other_shapes(clock):
    own = Turns()
    own.refuse(A)
    assert to_make(own, ready(A, waited_s=9) + ready(B)) == B
