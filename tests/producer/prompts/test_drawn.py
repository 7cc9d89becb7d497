"""Template and choices are kept in the plan; wildcards in a shuffled order repeat nothing before its time."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptmill.producer.job import Job, canonical_json
from promptmill.producer.outputs.open import open_output
from promptmill.producer.plan import PlanOptions, plan_jobs
from promptmill.producer.plan_files import load_plan, write_plan
from promptmill.producer.plan_lines import PlannedJob, PlanReader, drawn_json, plan_line
from promptmill.producer.prompts.expand import Expansion
from promptmill.producer.prompts.syntax import escape, parse
from promptmill.producer.prompts.templates import every


def drawn(*rows: Any, **expansion: Any) -> list[PlannedJob]:
    with plan_jobs(rows, PlanOptions(expansion=Expansion(**expansion))) as plan:
        return list(plan)


def own(job: PlannedJob, name: str = "prompt") -> str:
    text: str = json.loads(job.own_json)[name]
    return text


def test_template_and_choices_are_kept_by_field():
    row = {"prompt": "a {red|{dark|light} blue} {cat|dog}, {2$$x|y|z}", "negative_prompt": "{blurry|dark}"}
    for combinatorial in (False, True):
        for job in drawn(row, "a pear", combinatorial=combinatorial)[:-1]:
            assert job.template == row
            assert job.choices is not None
            colour, animal, pair = job.choices["prompt"]
            assert own(job) == f"a {colour} {animal}, {pair}"
            (negative,) = job.choices["negative_prompt"]
            assert negative in ("blurry", "dark")


def test_where_nothing_was_chosen_nothing_is_kept():
    for job in drawn("a pear", r"a \{pear\}", "a_b"):
        assert (job.template, job.choices) == (None, None)


def test_they_are_in_the_output_and_decide_no_job(tmp_path: Path):
    output = open_output(str(tmp_path)).child("r")
    rows = [{"prompt": "a {red|red} cat", "seed": 5}, {"prompt": "a red cat", "seed": 5}]
    with plan_jobs(rows) as plan:
        assert (plan.jobs, plan.images) == (2, 1)
        write_plan(output, "r", plan)
    with load_plan(output) as loaded:
        first, second = loaded
    assert (first.template, first.choices) == ({"prompt": "a {red|red} cat"}, {"prompt": ["red"]})
    assert second.template is None


texts = st.text(max_size=20).filter(lambda text: not any("\ud800" <= char <= "\udfff" for char in text))
labels = st.recursive(texts | st.integers(), lambda inner: st.dictionaries(texts, inner, max_size=3), max_leaves=5)


@settings(deadline=None)
@given(st.lists(texts.filter(lambda text: not text.endswith("\\")), min_size=2, max_size=4), labels)
def test_any_choices_and_labels_come_back(options: list[str], label: Any):
    template = f"a {{{'|'.join(escape(option) for option in options)}}} b"
    for text in every(template, parse(template, lambda name, depth: pytest.fail(name))):
        job = Job(prompt="x", seed=3)
        told = {"template": {"template": "x"}, "a": label}
        line = plan_line(job.id, 7, job.to_json(), canonical_json(told), drawn_json({"prompt": text}))
        back = PlanReader({}).job(line, False)
        assert (back.template, back.labels) == ({"prompt": template}, told)
        assert back.choices == {"prompt": list(text.choices)}
        assert json.loads(line)["choices"] == back.choices


LINES = [f"line {n}" for n in range(7)]


@pytest.fixture
def wild(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "line.txt").write_text("\n".join(LINES))
    return tmp_path


@pytest.mark.parametrize("order", ["sequential", "shuffled"])
def test_no_line_comes_again_before_all_were_there(wild: Path, order: str):
    found = [own(job) for job in drawn(*["__sub/line__"] * 28, wildcards=wild, wildcard_order=order)]
    turns = [found[at : at + 7] for at in range(0, 28, 7)]
    assert all(sorted(turn) == LINES for turn in turns)
    assert (turns[0] == LINES) == (order == "sequential")
    assert len({tuple(turn) for turn in turns}) == (1 if order == "sequential" else 4)


def test_a_shuffled_order_follows_from_the_runs_seed(wild: Path):
    def found(seed: int) -> list[str]:
        jobs = drawn("__sub/line__", wildcards=wild, wildcard_order="shuffled", images_per_prompt=7, run_seed=seed)
        return [own(job) for job in jobs]

    assert found(1) == found(1) != found(2)


@pytest.mark.parametrize("order", ["sequential", "shuffled"])
def test_a_pick_over_the_end_of_a_turn_has_different_lines(wild: Path, order: str):
    for job in drawn(*["{3$$;$$__sub/line__}"] * 40, wildcards=wild, wildcard_order=order):
        assert len(set(own(job).split(";"))) == 3
