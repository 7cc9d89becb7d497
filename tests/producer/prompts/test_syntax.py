"""The syntax of alternatives: what it means, what it refuses, where it says the fault is."""

import time
from collections import Counter
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from promptmill.producer.prompts.syntax import MAX_DEPTH, TemplateError, escape, parse
from promptmill.producer.prompts.templates import MANY, Choice, Draws, Node


def no_files(name: str, depth: int) -> Choice:
    raise TemplateError("no files here")


def template(text: str) -> Node:
    return parse(text, no_files)


def every(text: str) -> list[str]:
    return list(template(text).every())


def drawn(text: str, seeds: int = 200) -> list[str]:
    node = template(text)
    return [node.draw(Draws(Random(seed))) for seed in range(seeds)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a {red|blue} ball", ["a red ball", "a blue ball"]),
        ("{a|{b|c} d}", ["a", "b d", "c d"]),
        ("{a|b} {1|2}", ["a 1", "a 2", "b 1", "b 2"]),
        ("x{|y}", ["x", "xy"]),
        ("{a|a}", ["a", "a"]),
        ("{3::a|0.5::b| .25 ::c}", ["a", "b", "c"]),
        ("{a::b|::c}", ["a::b", "::c"]),
        (r"{3\::a|b}", ["3::a", "b"]),
        ("{2$$a|b|c}", ["a, b", "a, c", "b, c"]),
        ("{1-2$$ and $$a|b}", ["a", "b", "a and b"]),
        ("{2-$$a|b|c}", ["a, b", "a, c", "b, c", "a, b, c"]),
        ("{-2$$a|b}", ["a", "b", "a, b"]),
        ("{0-1$$a}", ["", "a"]),
        ("{2$$$$a|b}", ["ab"]),
        (r"{2$$ \$ $$a|b}", ["a $ b"]),
        (r"{2$$\|$$a|b}", ["a|b"]),
        ("{2$${a|b}|{1|2}}", ["a, 1", "a, 2", "b, 1", "b, 2"]),
        ("{1$$a}", ["a"]),
        (r"\{a\|b\}", ["{a|b}"]),
        (r"\# a tag", ["# a tag"]),
        (r"\__a__", ["__a__"]),
        ("a|b $$ (w:1.3) \\(c\\) 12\\:30 snake_case a:: 2$$", ["a|b $$ (w:1.3) \\(c\\) 12\\:30 snake_case a:: 2$$"]),
        ("one __ two, x__y, __ a __", ["one __ two, x__y, __ a __"]),
        ("", [""]),
    ],
)
def test_every_combination_in_order(text: str, expected: list[str]) -> None:
    assert every(text) == expected
    assert template(text).count == len(expected)
    assert set(drawn(text)) == set(expected), "and at random each of them, nothing else"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a {b", "has '{' at character 3 that is never closed"),
        ("a {b|{c}", "has a single alternative between the braces at character 6"),
        ("a} b", "has '}' at character 2 with no '{' before it"),
        ("a {}", "has nothing between the braces at character 3"),
        ('{"a": 1}', "has a single alternative between the braces at character 1"),
        ("{3$$a|b}", "picks 3 of 2 alternatives at character 1"),
        ("{2-1$$a|b}", "picks 2-1 of 2 alternatives at character 1"),
        ("{0$$a|b}", "picks 0 of 2 alternatives at character 1"),
        ("{-$$a|b}", "picks '-$$' at character 1: expected 2$$, 1-2$$, 2-$$ or -2$$"),
        ("{1 2$$a|b}", "picks '1 2$$' at character 1"),
        ("{$$a|b}", "picks '$$' at character 1"),
        ("x {a|-1::b}", "has the weight '-1::' at character 6: expected a number above 0"),
        ("{0::a|b}", "has the weight '0::' at character 2"),
        ("{1e9::a|b}", "has the weight '1e9::' at character 2"),
        ("x __a__", "has __a__ at character 3: no files here"),
        ("__two words__", "has __two words__ at character 1: no files here"),
        ("{" * 60 + "a|b" + "}" * 60, f"has more than {MAX_DEPTH} alternatives within one another at character 51"),
        ("{" * 5000, f"has more than {MAX_DEPTH} alternatives within one another"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, problem: str) -> None:
    with pytest.raises(TemplateError) as caught:
        template(text)
    assert str(caught.value).startswith(problem)


def test_weights_weigh() -> None:
    counts = Counter(drawn("{3::a|1::b}", 4000))
    assert 2.6 < counts["a"] / counts["b"] < 3.5
    counts = Counter(drawn("{2$$8::a|1::b|1::c}", 4000))
    assert counts["b, c"] < 150 < counts["a, b"], "two light ones together are rare: 2 * 1/10 * 1/9"


def test_picks_are_all_as_likely() -> None:
    counts = Counter(drawn("{2$$a|b|c|d}", 6000))
    assert len(counts) == 6 and all(850 < count < 1150 for count in counts.values())


def test_counting_needs_no_enumeration() -> None:
    start = time.monotonic()
    assert template("{0|1|2|3|4|5|6|7|8|9}" * 12).count == 10**12
    assert template("{0|1|2|3|4|5|6|7|8|9}" * 500).count == MANY
    assert template("{20$$" + "|".join("ab" * 50) + "}").count == MANY
    assert template("{3-4$${a|b}|c|d|e|f}").count == (4 + 2 * 6) + (1 + 2 * 4)
    assert time.monotonic() - start < 1


def test_a_long_flat_template_is_no_deep_one() -> None:
    assert every("{a|b}" + "{1$$c}" * 3000) == ["a" + "c" * 3000, "b" + "c" * 3000]


@given(st.text("ab{}|$_:\\#12-, ", max_size=30) | st.text(max_size=30))
@example(r"\_")
@example("___a__")
@example(r"{3\::a|b}")
def test_what_is_escaped_is_plain(text: str) -> None:
    assert every(escape(text)) == [text]
    assert drawn(escape(text), 1) == [text]


@given(st.lists(st.text("ab{}|$_:#12-, ", max_size=8), min_size=2, max_size=4))
def test_escaped_texts_are_alternatives(texts: list[str]) -> None:
    assert every("{" + "|".join(map(escape, texts)) + "}") == texts


@settings(deadline=None)
@given(st.text("ab{}|$_:\\#12-, ", max_size=40), st.integers(0, 5))
def test_any_text_is_a_template_or_told(text: str, seed: int) -> None:
    try:
        node = template(text)
    except TemplateError as error:
        assert str(error)
        return
    one = node.draw(Draws(Random(seed)))
    assert one == node.draw(Draws(Random(seed)))
    assert len(one) < node.cost
    if node.count < 1000:
        texts = list(node.every())
        assert len(texts) == node.count
        assert one in texts


words = st.sampled_from(["a", "b c", "", "x|", "d "]).map(escape)


def _braces(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    options = st.lists(inner, min_size=2, max_size=4)
    picks = st.sampled_from(["", "", "2$$", "1-2$$+$$", "-2$$", "0-1$$"])
    return st.builds(lambda pick, parts: "{" + pick + "|".join(parts) + "}", picks, options)


nested = st.recursive(words, lambda inner: _braces(inner) | st.tuples(inner, inner).map("".join), max_leaves=8)


@settings(deadline=None)
@given(st.lists(nested, min_size=1, max_size=3))
def test_the_count_of_a_sequence_is_the_product(parts: list[str]) -> None:
    counts = [template(part).count for part in parts]
    product = 1
    for count in counts:
        product *= count
    whole = template(" ".join(parts))
    assert whole.count == product
    if product < 3000:
        texts = list(whole.every())
        assert len(texts) == product
        assert set(drawn(" ".join(parts), 5)) <= set(texts)
