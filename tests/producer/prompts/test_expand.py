"""A row's jobs: texts, a matrix, images per prompt, seeds."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptmill.producer.errors import ExpansionError, JobError
from promptmill.producer.prompts.expand import Expander, Expansion
from promptmill.producer.prompts.seeds import derived_seed
from promptmill.producer.prompts.syntax import escape

MATRIX: Mapping[str, tuple[Any, ...]] = {"num_inference_steps": (20, 30), "guidance_scale": (5.0, 7.0)}
ALPHABET = "ab{}|$_:\\#12-, "


def jobs(prompt: Any, index: int = 0, fields: Mapping[str, Any] | None = None, **settings: Any) -> list[dict[str, Any]]:
    return list(Expander(Expansion(**settings))({"prompt": prompt, **(fields or {})}, index))


def seeds(prompt: str, index: int = 0, fields: Mapping[str, Any] | None = None, **settings: Any) -> list[int]:
    return [job["seed"] for job in jobs(prompt, index, fields, **settings)]


def cells(made: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [tuple(job[name] for name in MATRIX) for job in made]


@pytest.mark.parametrize("expansion", [Expansion(), Expansion(plain=True), Expansion(run_seed=9)])
def test_a_row_without_alternatives_is_one_job_as_it_stands(expansion: Expansion) -> None:
    fields = {"prompt": "a (red:1.2) ball, 50% off: a_b|c", "width": 64}
    expander = Expander(expansion)
    assert expander.trivial(fields)
    assert list(expander(fields, 5)) == [{**fields, "seed": derived_seed(expansion.run_seed, 5)}]


def test_plain_prompts_stay_as_they_are() -> None:
    text = r"{a|b} __c__ \{ }"
    assert Expander(Expansion(plain=True)).trivial({"prompt": text})
    made = jobs(text, plain=True, combinatorial=True, images_per_prompt=2)
    assert [job["prompt"] for job in made] == [text, text]


@pytest.mark.parametrize("field", ["prompt", "prompt_2", "negative_prompt", "negative_prompt_2"])
def test_every_text_has_alternatives(field: str) -> None:
    made = jobs("x", fields={field: "{a|b}"}, combinatorial=True)
    assert [job[field] for job in made] == ["a", "b"]
    with pytest.raises(JobError) as caught:
        jobs("x", fields={field: "a {b"})
    assert caught.value.field == field


def test_combinations_are_of_all_texts_together() -> None:
    made = jobs("{a|b}", fields={"negative_prompt": "{1|2}"}, combinatorial=True, index=10)
    assert [(job["prompt"], job["negative_prompt"], job["seed"]) for job in made] == [
        ("a", "1", 10),
        ("a", "2", 11),
        ("b", "1", 12),
        ("b", "2", 13),
    ]


def test_random_texts_differ_from_place_to_place_and_by_run_seed() -> None:
    expander = Expander(Expansion(run_seed=3))
    drawn = [next(expander({"prompt": "{a|b|c|d}"}, index))["prompt"] for index in range(40)]
    assert set(drawn) == set("abcd")
    other = Expander(Expansion(run_seed=4))
    assert drawn != [next(other({"prompt": "{a|b|c|d}"}, index))["prompt"] for index in range(40)]


def test_random_choices_are_the_same_for_ever() -> None:
    """Written down: a change of them would make another run of the same file."""
    drawn = jobs("{a|b|c|d} {5::e|f} {2$$g|h|i|j}", run_seed=5, images_per_prompt=4, index=2)
    assert [job["prompt"] for job in drawn] == FOR_EVER


FOR_EVER = ["c e g, j", "a f h, i", "a e g, j", "d e g, i"]


def test_a_matrix_is_every_combination_but_for_what_a_row_says() -> None:
    assert cells(jobs("a", matrix=MATRIX)) == [(20, 5), (20, 7), (30, 5), (30, 7)]
    assert cells(jobs("a", fields={"num_inference_steps": 4}, matrix=MATRIX)) == [(4, 5), (4, 7)]
    assert cells(jobs("a", fields={"num_inference_steps": None}, matrix=MATRIX)) == cells(jobs("a", matrix=MATRIX))


def test_the_order_of_a_matrix_is_that_of_a_jobs_fields() -> None:
    assert cells(jobs("a", matrix=dict(reversed(list(MATRIX.items()))))) == cells(jobs("a", matrix=MATRIX))


def test_the_cells_of_a_matrix_differ_in_nothing_else() -> None:
    made = jobs("{a|b|c|d|e|f}", index=7, matrix=MATRIX, images_per_prompt=2, run_seed=3)
    assert [(job["prompt"], job["seed"]) for job in made[:4]] == [(made[0]["prompt"], derived_seed(3, 7))] * 4
    assert [(job["prompt"], job["seed"]) for job in made[4:]] == [(made[4]["prompt"], derived_seed(3, 8))] * 4


def test_images_of_a_prompt_have_seeds_of_their_own() -> None:
    assert seeds("a", fields={"seed": 5}, images_per_prompt=3) == [5, 6, 7]
    assert seeds("a", index=40, images_per_prompt=3) == [40, 41, 42]
    assert seeds("a", matrix={"seed": (5, 90)}, images_per_prompt=2) == [5, 90, 6, 91]
    assert seeds("{a|b}", fields={"seed": 5}, combinatorial=True, images_per_prompt=2) == [5, 6, 5, 6]


@pytest.mark.parametrize("seed", [2**64 - 1, "7", True, 1.5, float("nan")])
def test_a_seed_that_cannot_be_counted_on_from_is_told(seed: Any) -> None:
    with pytest.raises(JobError, match="seed: must"):
        seeds("a", fields={"seed": seed}, images_per_prompt=3)


@pytest.mark.parametrize(
    ("prompt", "more", "count"),
    [
        ("{0|1|2|3|4|5|6|7|8|9}" * 7, {}, "10,000,000"),
        ("{0|1|2|3|4|5|6|7|8|9}" * 6, {"images_per_prompt": 2}, "2,000,000"),
        ("{0|1|2|3|4|5|6|7|8|9}" * 6, {"matrix": MATRIX}, "4,000,000"),
        ("{0|1|2|3|4|5|6|7|8|9}" * 400, {}, "at least 1,000,000,000,000,000,000"),
    ],
)
def test_a_row_that_means_too_many_jobs_is_told(prompt: str, more: dict[str, Any], count: str) -> None:
    with pytest.raises(JobError, match=f"makes {count} jobs; expected at most 1,000,000 per row"):
        jobs(prompt, combinatorial=True, **more)


def test_a_million_jobs_of_a_row_come_one_by_one() -> None:
    made = Expander(Expansion(combinatorial=True))({"prompt": "{0|1|2|3|4|5|6|7|8|9}" * 6}, 0)
    assert [next(made)["prompt"] for _ in range(3)] == ["000000", "000001", "000002"]


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"wildcard_order": "any"}, "wildcard order 'any': expected random or sequential"),
        ({"images_per_prompt": 0}, "images per prompt must be 1 or more, got 0"),
        ({"run_seed": -1}, "run seed must be 0 or more, got -1"),
        ({"matrix": {"steps": (1, 2)}}, "steps: is not a field"),
        ({"matrix": {"prompt": ("a", "b")}}, "prompt: is not a field"),
        ({"matrix": {"width": ()}}, "width: has no values"),
        ({"matrix": {"width": (64, 64)}}, "width: has 64 twice"),
        ({"matrix": {"seed": tuple(range(2000))}, "images_per_prompt": 1000}, "make 2,000,000 jobs per row"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any], problem: str) -> None:
    with pytest.raises(ExpansionError, match=problem):
        Expander(Expansion(**wrong))


expansions = st.builds(
    Expansion,
    plain=st.booleans(),
    combinatorial=st.booleans(),
    wildcard_order=st.sampled_from(["random", "sequential"]),
    matrix=st.sampled_from([{}, MATRIX, {"seed": (1, 2)}]),
    images_per_prompt=st.integers(1, 3),
    run_seed=st.integers(0, 2**40),
)


@settings(deadline=None)
@given(expansions, st.text(ALPHABET, max_size=30), st.none() | st.text(ALPHABET, max_size=10), st.integers(0, 2**40))
def test_any_row_is_jobs_or_told_and_again_the_same(
    expansion: Expansion, prompt: str, negative: str | None, index: int
) -> None:
    fields = {"prompt": prompt, "negative_prompt": negative}
    try:
        made = list(Expander(expansion)(fields, index))
    except JobError as error:
        assert error.field in fields and error.problem
        assert not expansion.plain
        return
    assert made == list(Expander(expansion)(fields, index))
    assert all(isinstance(job["seed"], int) for job in made)
    assert len(made) % expansion.images_per_prompt == 0
    if expansion.images_per_prompt == 1 and Expander(expansion).trivial(fields):
        assert made == [{**fields, "seed": derived_seed(expansion.run_seed, index)}]


@settings(deadline=None)
@given(expansions, st.lists(st.sampled_from(["a", "{a|b}", "{2$$a|b|c} {d|e}"]), max_size=8))
def test_rows_never_share_a_derived_seed(expansion: Expansion, prompts: list[str]) -> None:
    expander, index = Expander(expansion), 0
    seen: set[int] = set()
    for prompt in prompts:
        made = list(expander({"prompt": prompt}, index))
        own = {job["seed"] for job in made}
        if "seed" not in expansion.matrix:
            assert not own & seen
        seen |= own
        index += len(made)


@settings(deadline=None)
@given(st.text(max_size=40), st.booleans())
def test_an_escaped_prompt_is_itself(text: str, combinatorial: bool) -> None:
    assert [job["prompt"] for job in jobs(escape(text), combinatorial=combinatorial)] == [text]
