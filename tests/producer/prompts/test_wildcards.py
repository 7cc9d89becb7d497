"""Wildcard files: what a name means, and what is told where it means nothing."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from promptmill.producer.errors import ExpansionError, JobError
from promptmill.producer.prompts.expand import Expander, Expansion

ANIMALS = ["cat", "dog", "big bird", "small bird"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {
        "animal": "\ufeff# tame\r\ncat\r\n  dog  \r\n\r\n{big|small} bird\r\n",
        "more/thing": "ball\n__animal__\n",
        "loop": "a\n__pool__\n",
        "pool": "b\n{c|__loop__}\n",
        "self": "__self__",
        "none": "# nothing\n",
        "bad": "fine\n\nfine, too\n{open\n",
        "shop": "8::bread\n1::cake\n",
        "sharp": "\\# one\n3\\::two\n",
        "colours": "red\nblue\n",
        "v1.2 final": "new\n",
    }
    for name, text in files.items():
        path = tmp_path / "w" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (tmp_path / "w" / "latin.txt").write_bytes(b"caf\xe9\n")
    (tmp_path / "secret.txt").write_text("secret\n")
    return tmp_path / "w"


def prompts(prompt: str, folder: Path, indexes: int = 1, **more: object) -> list[str]:
    expander = Expander(Expansion(wildcards=folder, **more))  # type: ignore[arg-type]
    return [job["prompt"] for index in range(indexes) for job in expander({"prompt": prompt}, index)]


def test_a_name_is_any_line_of_its_file(folder: Path) -> None:
    assert prompts("a __animal__.", folder, combinatorial=True) == [f"a {animal}." for animal in ANIMALS]
    assert set(prompts("__animal__", folder, 99)) == set(ANIMALS)


def test_names_may_have_folders_and_lines_may_have_wildcards(folder: Path) -> None:
    assert prompts("__more/thing__", folder, combinatorial=True) == ["ball", *ANIMALS]
    assert prompts("__v1.2 final__", folder) == ["new"]


def test_lines_may_have_weights_and_escapes(folder: Path) -> None:
    drawn = prompts("__shop__", folder, 900)
    assert 5 < drawn.count("bread") / drawn.count("cake") < 13
    assert prompts("__sharp__", folder, combinatorial=True) == ["# one", "3::two"]


def test_different_lines_are_picked(folder: Path) -> None:
    assert prompts("{2$$ + $$__colours__}", folder) == ["red + blue"]
    assert len(prompts("{2$$__animal__}", folder, combinatorial=True)) == 1 + 2 * 2
    assert prompts("{2$$__colours__|x}", folder, combinatorial=True) == ["red, x", "blue, x"]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("animl", "there is no animl.txt in {folder}; did you mean __animal__?"),
        ("Animal", "there is no Animal.txt in {folder}; did you mean __animal__?"),
        ("zzz", "there is no zzz.txt in {folder}"),
        ("loop", "{folder}/loop.txt:2 has __pool__ at character 1: {folder}/pool.txt:2 has __loop__ at character 4: "
                 "it never ends: loop -> pool -> loop"),
        ("self", "{folder}/self.txt:1 has __self__ at character 1: it never ends: self -> self"),
        ("none", "{folder}/none.txt has no lines"),
        ("bad", "{folder}/bad.txt:4 has '{{' at character 1 that is never closed"),
        ("latin", "{folder}/latin.txt is not UTF-8 at byte 4"),
        ("../secret", "there is no ../secret.txt in {folder}"),
        ("/etc/passwd", "there is no /etc/passwd.txt in {folder}"),
    ],
)  # fmt: skip
def test_a_wildcard_that_cannot_be_is_told(folder: Path, name: str, problem: str) -> None:
    with pytest.raises(JobError) as caught:
        prompts(f"a __{name}__", folder)
    expected = f"has __{name}__ at character 3: {problem.format(folder=folder)}"
    assert caught.value.problem.startswith(expected)
    assert problem.endswith(("?", "secret.txt in {folder}", "closed")) or caught.value.problem == expected


def test_a_folder_is_needed(folder: Path) -> None:
    with pytest.raises(ExpansionError, match="is not a folder"):
        Expander(Expansion(wildcards=folder / "x"))
    with pytest.raises(JobError, match="no folder of wildcards was given"):
        list(Expander(Expansion())({"prompt": "__animal__"}, 0))


def test_files_that_double_at_each_step_are_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    (tmp_path / "f0.txt").write_text("ha\n")
    for number in range(1, 45):
        (tmp_path / f"f{number}.txt").write_text(f"__f{number - 1}____f{number - 1}__\n")
    for combinatorial in (False, True):
        with pytest.raises(JobError, match=r"may become [0-9,]+ characters and choices, more than 100,000"):
            prompts("__f44__", tmp_path, combinatorial=combinatorial)


def test_depth_is_of_braces_and_files_together(tmp_path: Path) -> None:
    (tmp_path / "f0.txt").write_text("ha\n")
    for number in range(1, 60):
        (tmp_path / f"f{number}.txt").write_text("{a|" * 9 + f"__f{number - 1}__" + "}" * 9)
    assert prompts("__f4__", tmp_path)
    with pytest.raises(JobError, match="more than 50 alternatives within one another"):
        prompts("__f5__", tmp_path)
    with pytest.raises(JobError, match="more than 50 alternatives within one another"):
        prompts("__f59__", tmp_path)
    known_first = Expander(Expansion(wildcards=tmp_path))
    assert list(known_first({"prompt": "__f4__"}, 0))
    with pytest.raises(JobError, match="more than 50 alternatives within one another"):
        list(known_first({"prompt": "__f5__"}, 1))


def test_in_order_nested_wildcards_have_an_order_of_their_own(folder: Path) -> None:
    (folder / "of.txt").write_text("one __colours__\nany __colours__\n")
    drawn = prompts("__of__, __colours__", folder, 3, wildcard_order="sequential")
    assert drawn == ["one red, blue", "any red, blue", "one red, blue"]
    assert prompts("{2$$__animal__}", folder, 2, wildcard_order="sequential")[0] == "cat, dog"


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 12), st.lists(st.integers(1, 3), min_size=1, max_size=20))
def test_in_order_no_line_comes_again_before_all_were_used(tmp_path: Path, lines: int, picks: list[int]) -> None:
    (tmp_path / "n.txt").write_text("\n".join(str(number) for number in range(lines)))
    expander = Expander(Expansion(wildcards=tmp_path, wildcard_order="sequential"))
    drawn: list[str] = []
    for index, size in enumerate(picks):
        prompt = f"{{{min(size, lines)}$$ $$__n__}}"
        drawn += [word for job in expander({"prompt": prompt}, index) for word in job["prompt"].split()]
    for start in range(0, len(drawn), lines):
        round_ = drawn[start : start + lines]
        assert len(set(round_)) == len(round_)


def test_what_nobody_sees_in_a_file_is_no_line(tmp_path: Path) -> None:
    (tmp_path / "colour.txt").write_text("red\u200b\n\u200b\n\ufeff# no colour\n\ufeffblue\n \u00a0\n")
    assert prompts("__colour__", tmp_path, combinatorial=True) == ["red", "blue"]
