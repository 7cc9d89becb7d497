"""What is said of prompts at submission, before anything is rendered."""

import json
from pathlib import Path
from typing import Any

import click
import pytest

from promptmill.producer.plan import PlanOptions, plan_jobs, plan_run
from promptmill.producer.prompts.tokens import counter, tokenizer_folder
from promptmill.verbs.planning import plan_options, prompt_file_options

HUB = "owner/nobody-has-it"
TAGS = "masterpiece,best_quality,1girl,solo,long_hair,red_apple,blue_sky,looking_at_viewer,upper_body,smile," * 3


@click.command()
@prompt_file_options
def submit(**given: Any) -> None:
    """The flags of `promptmill submit` that say what files mean."""


def said(path: Path, **defaults: Any) -> list[str]:
    with plan_run([str(path)], PlanOptions(defaults=defaults)) as plan:
        return [line for line in plan.warnings(None) if "first at" in line]


@pytest.fixture
def write(tmp_path: Path):
    def write(*lines: str) -> Path:
        path = tmp_path / "a.txt"
        path.write_text("\n".join(lines))
        return path

    return write


@pytest.mark.parametrize(
    ("line", "what", "detail"),
    [
        ("a red apple --n blurry, text --w 128 --h 128 --d 7", "kohya's scripts", "'--n blurry,'"),
        ("a red apple --s 12", "kohya's scripts", "'--s 12'"),
        ('--prompt "a red apple" --negative_prompt "blurry" --steps 12', "A1111's web UI", "'--prompt'"),
        ("a red apple --ar 16:9 --v 6", "Midjourney", "'--ar'"),
        ("a red apple <lora:detail_tweaker:0.8>", "a LoRA", "'<lora:detail_tweaker:0.8>'"),
    ],
)
def test_options_of_other_programs_are_said_with_file_and_line(write, line: str, what: str, detail: str):
    (found,) = said(write("a pear", line, line))
    assert found.startswith("2 jobs have ")
    assert what in found
    assert f"a.txt:2: {detail}" in found


@pytest.mark.parametrize(
    "line",
    [
        "a self--portrait -- in red",
        "print <b>bold</b> a < b",
        "an apple -- a pear --",
        "a 1--2 score, <lora>",
        "x --nothing of it",
        "♥ an apple — a pear –n",
    ],
)
def test_other_dashes_and_brackets_are_prompts(write, line: str):
    assert said(write(line)) == []


@pytest.mark.parametrize(
    "line", ["a {red|blue} ball", "a {2$$cat|dog}", "a {red|{dark|light} blue} ball", "a __colour__ ball"]
)
def test_what_looks_like_alternatives_is_said_where_nobody_said_what_they_are(write, line: str):
    def told(*words: str) -> tuple[list[str], list[str]]:
        given = submit.make_context("submit", [str(write("a pear", line)), *words]).params
        with plan_run(given.pop("files"), plan_options(given)) as plan:
            return [plan.whole(job).prompt for job in plan], [
                one for one in plan.warnings(None) if "alternatives" in one
            ]

    prompts, (said,) = told()
    assert prompts == ["a pear", line]
    assert said.startswith("1 job has what looks like alternatives in the prompt, first at ")
    assert "a.txt:2: " in said and "--expand" in said
    assert told("--plain-prompts") == (["a pear", line], [])
    if "__" not in line:
        for flag in ("--expand", "--combinatorial"):
            expanded, said_of_them = told(flag)
            assert line not in expanded and not said_of_them
        assert told("--combinatorial", "--plain-prompts")[0] == ["a pear", line]


@pytest.mark.parametrize("line", ["print({x}) | a", "a_b__ c", "{}", "a | b", "__ x __"])
def test_other_braces_and_bars_are_text(write, line: str):
    given = submit.make_context("submit", [str(write(line))]).params
    with plan_run(given.pop("files"), plan_options(given)) as plan:
        assert [plan.whole(job).prompt for job in plan] == [line]
        assert not any("alternatives" in one for one in plan.warnings(None))


def test_a_prompt_that_will_be_cut_is_counted_by_the_models_tokenizer(write):
    folder = tokenizer_folder("pocket")
    assert folder is not None
    tokens = counter(folder)(TAGS)
    (found,) = said(write("a red apple", TAGS))
    assert found.startswith("1 job has a prompt longer than 75 tokens per window, first at ")
    assert f"a.txt:2: {tokens} tokens (by the model's tokenizer)" in found
    assert said(write(TAGS), prompt_windows=8) == []


def test_without_the_tokenizer_it_is_estimated(write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    chinese, words = "一个红色的苹果放在蓝色的盘子上" * 3, "a red apple on a plate " * 14
    (found,) = said(write("a red apple", chinese, TAGS, words), model=HUB)
    assert found.startswith("3 jobs have a prompt that may be longer than 75 tokens per window, first at ")
    assert "(estimated, as the model's tokenizer is not on this machine)" in found


def test_other_texts_are_looked_at_once(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"pear {n}", "negative_prompt": TAGS}) + "\n" for n in range(3)))
    (found,) = said(path)
    assert found.startswith("1 job has a negative_prompt longer than 75 tokens")


def test_a_damaged_tokenizer_is_left_to_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--owner--name" / "snapshots" / "abc" / "tokenizer"
    folder.mkdir(parents=True)
    (folder / "merges.txt").write_bytes(b"\xff\xfe")
    (found,) = said(write(TAGS), model="owner/name@abc")
    assert "estimated" in found


def test_cut_prompts_are_counted_for_a_dry_run():
    with plan_jobs([TAGS, "a red apple", TAGS + " and a pear"]) as plan:
        assert plan.cut == 2
        assert any("jobs:1" in line for line in plan.warnings(None))
