"""Brackets as weights: A1111's grammar, and a reason where it would guess."""

import re

import pytest

from promptmill.worker.errors import RequestError
from promptmill.worker.text.weighting import parse, plain


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a cat", [("a cat", 1)]),
        ("", [("", 1)]),
        ("()", [("", 1)]),
        ("a (cat)", [("a ", 1), ("cat", 1.1)]),
        ("((cat)) sat", [("cat", 1.21), (" sat", 1)]),
        ("[cat]", [("cat", 1 / 1.1)]),
        ("(cat:1.3)(dog: .5 )", [("cat", 1.3), ("dog", 0.5)]),
        ("(a (b:1.5) c:2)", [("a ", 2), ("b", 3), (" c", 2)]),
        ("([a] b)", [("a", 1), (" b", 1.1)]),
        ("(unnecessary)(brackets)", [("unnecessarybrackets", 1.1)]),
        ("(cat:0)", [("cat", 0)]),
        ("ratio 3:2, (at 9:am)", [("ratio 3:2, ", 1), ("at 9:am", 1.1)]),
        (r"\(a\) \[b\] \\ c\d", [(r"(a) [b] \ c\d", 1)]),
        (r"(at 12\:30)", [("at 12:30", 1.1)]),
        ("(two\nlines)", [("two\nlines", 1.1)]),
        # The example of A1111's own docstring, its unclosed bracket closed.
        (
            "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).)",
            [
                ("a ", 1),
                ("house", 1.573),
                (" ", 1.1),
                ("on", 1),
                (" a ", 1.1),
                ("hill", 0.55),
                (", sun, ", 1.1),
                ("sky", 1.4641),
                (".", 1.1),
            ],
        ),
    ],
)
def test_brackets_give_weights(prompt: str, expected: list[tuple[str, float]]) -> None:
    segments = parse(prompt)
    assert [segment.text for segment in segments] == [text for text, _ in expected]
    assert [segment.weight for segment in segments] == pytest.approx([weight for _, weight in expected])


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("a (cat", "'(' is never closed: character 3, near 'a (cat'"),
        ("a cat)", "')' closes nothing: character 6"),
        ("(a [b) c]", "')' closes nothing: character 6"),
        ("smile :)", "')' closes nothing: character 8"),
        ("(cat:11)", "a weight is a number from 0 to 10, got 11: character 5"),
        ("(cat:-1)", "from 0 to 10, got -1"),
        ("(cat:1.2.3)", "from 0 to 10, got 1.2.3"),
        ("(meet at 12:30)", "from 0 to 10, got 30"),
        ("((cat:6):6)", "nested weights multiply to 36"),
        ("[cat:dog:0.5]", "[...:0.5] (prompt editing) is not implemented: character 9"),
        ("a [cat|dog]", "[...|...] (alternating words) is not implemented: character 3"),
    ],
)
def test_what_would_be_a_guess_is_refused_with_its_place(prompt: str, reason: str) -> None:
    with pytest.raises(RequestError, match=re.escape(reason)):
        parse(prompt)


def test_each_character_knows_its_place_in_the_prompt() -> None:
    prompt = r"a \(b\) (c:1.2) d"
    for segment in parse(prompt):
        for letter, place in zip(segment.text, segment.places, strict=True):
            assert prompt[place] == letter or prompt[place : place + 2] == f"\\{letter}"


def test_without_weighting_brackets_are_text() -> None:
    (segment,) = plain("(cat:1.3) [")
    assert (segment.text, segment.weight) == ("(cat:1.3) [", 1.0)
