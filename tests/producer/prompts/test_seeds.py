"""Seeds of jobs that name none."""

from hypothesis import example, given
from hypothesis import strategies as st

from promptmill.producer.prompts.seeds import MOST, ROOM, derived_seed, next_range


def test_without_a_run_seed_the_seed_is_the_place() -> None:
    assert [derived_seed(0, index) for index in (0, 1, 2**33)] == [0, 1, 2**33]


def test_seeds_of_a_run_are_the_same_for_ever() -> None:
    """Written down: a change of them would change every image of a run that is rendered again."""
    assert [derived_seed(7, index) for index in (0, 1, 2**32)] == RUN_7


RUN_7 = [333159641, 1788762166, 4628126937]


def test_a_hundred_thousand_places_have_as_many_seeds() -> None:
    assert len({derived_seed(7, index) for index in range(100_000)}) == 100_000


@given(st.integers(1, 2**70), st.sets(st.integers(0, 2**32 - 1), max_size=50))
@example(1, {0, 1, 2**16, 2**16 + 1, 2**32 - 1})
def test_no_two_places_share_a_seed(run_seed: int, indexes: set[int]) -> None:
    seeds = {derived_seed(run_seed, index) for index in indexes}
    assert len(seeds) == len(indexes)
    assert all(0 <= seed < 2**32 for seed in seeds)


@given(st.integers(1, 2**64), st.integers(0, 2**31))
def test_another_run_seed_is_another_order(run_seed: int, index: int) -> None:
    def seeds(of: int) -> list[int]:
        return [derived_seed(of, index + number) for number in range(4)]

    assert seeds(run_seed) == seeds(run_seed) != seeds(run_seed + 1)


def test_ranges_of_files_do_not_meet_and_stay_within_what_differs():
    assert [next_range(1), next_range(ROOM), next_range(ROOM + 1)] == [ROOM, ROOM, 2 * ROOM]
    assert next_range(MOST - ROOM + 1) == MOST - ROOM + 1, "right behind, where there is no room"
