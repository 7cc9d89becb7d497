"""The plan: what prompt files mean, in order, and which rows are refused."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptmill.producer.errors import JobError, ModelNameError, PlanError, PromptFileErrors
from promptmill.producer.job import Job
from promptmill.producer.outputs.open import open_output
from promptmill.producer.plan import Plan, PlanOptions, check_run_name, clean_name, plan_jobs, plan_run
from promptmill.producer.plan_files import read_run, write_plan
from promptmill.producer.prompts.expand import Expansion
from promptmill.producer.prompts.seeds import derived_seed
from tests.plans import jobs_in, plan_of_jobs
from tests.producer.small_plans import ids, plan_of, some_jobs


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Plan]:
    """The plan of rows: text is a .txt, dicts are a .jsonl."""

    def read(*files: str | list[dict[str, Any]], **defaults: Any) -> Plan:
        paths = []
        for number, file in enumerate(files):
            path = tmp_path / (f"{number}.txt" if isinstance(file, str) else f"{number}.jsonl")
            path.write_text(file if isinstance(file, str) else "\n".join(map(json.dumps, file)))
            paths.append(path)
        return plan_run(list(map(str, paths)), PlanOptions(defaults))

    return read


# --- what prompt files mean


def test_rows_keep_their_order_over_files(read):
    plan = read("one\n\n# no\ntwo", [{"prompt": "three"}], "four")
    assert [job.prompt for job in jobs_in(plan)] == ["one", "two", "three", "four"]


def test_the_seed_is_the_place_in_the_run_unless_given(read):
    plan = read("one\ntwo", [{"prompt": "three", "seed": 99}, {"prompt": "four"}])
    assert [job.seed for job in jobs_in(plan)] == [0, 1, 99, 2**20 + 1], "each file's begin at a distance"


def test_a_seed_for_all_rows_is_for_all_that_have_none(read):
    plan = read("one", [{"prompt": "two", "seed": 99}], seed=7)
    assert [job.seed for job in jobs_in(plan)] == [7, 99]


def test_a_row_wins_over_the_flags_and_the_flags_over_the_model(read):
    plan = read([{"prompt": "x", "steps": 3}, {"prompt": "y"}], num_inference_steps=4, negative_prompt="dull")
    assert [job.num_inference_steps for job in jobs_in(plan)] == [3, 4]
    assert {(job.negative_prompt, job.width, job.model) for job in jobs_in(plan)} == {("dull", 64, "pocket")}


def test_a_flag_of_none_is_not_given_and_one_of_zero_is(read):
    (job,) = jobs_in(read("x", seed=None, guidance_scale=0))
    assert (job.seed, job.guidance_scale) == (0, 0.0)


def test_each_row_gets_the_defaults_of_its_own_model(read):
    plan = read(
        [{"prompt": "x"}, {"prompt": "y", "model": "org/name"}, {"prompt": "z", "model": "org/name", "width": 512}]
    )
    sizes = [(job.width, job.height, job.num_inference_steps) for job in jobs_in(plan)]
    assert sizes == [(64, 64, 10), (1024, 1024, 50), (512, 1024, 50)]


def test_a_wrong_flag_is_told_once_and_without_a_line(read):
    with pytest.raises(JobError, match=r"^width: must be a multiple of 8, got 1030$"):
        read("one\ntwo", width=1030)
    with pytest.raises(ModelNameError, match=r"^no model 'nonsense'"):
        read("one\ntwo", model="nonsense")


def test_rows_that_mean_the_same_share_one_image(read):
    plan = read([{"prompt": "x", "seed": 1}, {"prompt": "y"}, {"prompt": "x", "seed": 1, "steps": 10}])
    first, second, third = plan
    assert first.id == third.id != second.id
    assert [job.first for job in plan] == [True, True, False]
    assert (plan.jobs, plan.images, plan.duplicates) == (3, 2, 1)
    assert sum(plan.shapes.values()) == 2


def test_the_jobs_of_each_shape_are_counted(read):
    plan = read([{"prompt": "x"}, {"prompt": "y", "width": 128}, {"prompt": "z"}, {"prompt": "z", "guidance": 1}])
    assert sorted(plan.shapes.values()) == [1, 1, 2]


def test_what_all_jobs_share_is_found_without_prompt_and_seed():
    jobs = [Job(prompt="x", negative_prompt="a"), Job(prompt="x", negative_prompt="a", width=512)]
    common = plan_of_jobs(jobs).common
    assert common["negative_prompt"] == "a"
    assert {"prompt", "seed", "width"}.isdisjoint(common)
    assert "height" in common
    assert "prompt_2" not in plan_of_jobs([Job(prompt="x"), Job(prompt="x", prompt_2="y")]).common


# --- names of runs


def test_the_default_name_is_the_same_for_the_same_jobs_and_place():
    assert plan_of(3).default_name("cats", "/out") == plan_of(3).default_name("cats", "/out")
    assert plan_of(3).default_name("cats", "/out").startswith("cats-")


def test_the_default_name_is_another_for_other_jobs_or_another_place():
    reordered = plan_of_jobs(reversed(some_jobs(3)))
    names = [
        plan_of(3).default_name("cats", "/out"),
        plan_of(4).default_name("cats", "/out"),
        reordered.default_name("cats", "/out"),
        plan_of(3).default_name("cats", "/elsewhere"),
        plan_of(3).default_name("dogs", "/out"),
    ]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("prompts_2.v1-a", "prompts_2.v1-a"),
        ("my prompts", "my-prompts"),
        ("Äpfel/../x", "pfel-..-x"),
        (".hidden", "hidden"),
        ("..", "run"),
        ("苹果", "run"),
        ("", "run"),
        ("a" * 200, "a" * 80),
        ("a" * 79 + ".b", "a" * 79),
    ],
)
def test_a_files_name_becomes_a_runs(stem: str, name: str):
    assert clean_name(stem) == name


@settings(deadline=None)
@given(st.text(max_size=100))
def test_a_cleaned_name_is_clean(stem: str):
    assert check_run_name(clean_name(stem)) == clean_name(stem)
    assert open_output("/out").child(clean_name(stem)).url == f"/out/{clean_name(stem)}"


@pytest.mark.parametrize("name", ["a/b", "..", ".x", "a b", "a:b", "a\n", "é", "x" * 81, ""])
def test_a_name_that_is_no_objects_is_refused_with_one_that_is(name: str):
    with pytest.raises(PlanError, match=f"e.g. '{clean_name(name)}'"):
        check_run_name(name)


# --- jobs from Python


def test_jobs_may_be_prompts_or_mappings_or_jobs():
    exact = Job(prompt="z", seed=9, width=64, sampler="euler_a")
    with plan_jobs(["x", {"prompt": "y", "steps": 3, "seed": None}, exact], PlanOptions({"width": 128})) as plan:
        first, second, third = jobs_in(plan)
    assert (first.prompt, first.seed, first.width) == ("x", 0, 128)
    assert (second.prompt, second.seed, second.num_inference_steps) == ("y", 1, 3)
    assert third == exact


def test_wrong_jobs_are_counted_from_1():
    with pytest.raises(PromptFileErrors) as caught:
        plan_jobs(["x", {"prompt": "y", "width": 7}, 5, {"promt": "z"}, "a\x07b", "\u3000"])  # type: ignore[list-item]
    found = [(error.line, error.field) for error in caught.value.errors]
    assert found == [(2, "width"), (3, None), (4, "promt"), (5, "prompt"), (6, "prompt")]


# --- wrong rows


def test_wrong_rows_are_skipped_where_one_says_so(output, tmp_path):
    rejects = tmp_path / "rejects.jsonl"
    options = PlanOptions({"steps": 4}, on_error="skip", rejects=rejects)
    with plan_jobs(["x", {"prompt": "y", "width": 7}, "  ", "z"], options) as plan:
        assert (plan.rows, plan.rejected, plan.jobs) == (4, 2, 2)
        assert [(job.prompt, job.seed) for job in jobs_in(plan)] == [("x", 0), ("z", 1)]
        write_plan(output, "r", plan)
    told = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert told == [json.loads(line) for line in output.get("rejects.jsonl").splitlines()]
    why = {"file": "jobs", "line": 2, "field": "width", "problem": "must be from 8 to 4096, got 7"}
    assert told[0] == {"_rejected": why, "prompt": "y", "width": 7}
    assert (told[1]["_rejected"]["problem"], told[1]["prompt"]) == ("is empty", "  ")
    assert read_run(output)["rejected"] == 2  # type: ignore[index]


def test_a_run_without_wrong_rows_has_no_rejects(output):
    with plan_jobs(["x"], PlanOptions(on_error="skip")) as plan:
        write_plan(output, "r", plan)
    assert "rejects.jsonl" not in set(output.list())


def test_where_rows_are_wrong_the_file_of_rejects_has_them_though_the_run_stops(tmp_path):
    rejects = tmp_path / "rejects.jsonl"
    with pytest.raises(PromptFileErrors) as caught:
        plan_jobs(["x"] + [""] * 25, PlanOptions(rejects=rejects))
    assert (len(caught.value.errors), caught.value.count) == (1, 25)
    assert len(rejects.read_text().splitlines()) == 25


def test_a_run_of_wrong_rows_alone_has_no_plan():
    with pytest.raises(PromptFileErrors, match="prompt: is empty"):
        plan_jobs([""], PlanOptions(on_error="skip"))


def test_half_a_surrogate_pair_does_not_break_the_file_of_rejects(tmp_path):
    rejects = tmp_path / "rejects.jsonl"
    with pytest.raises(PromptFileErrors, match="half a surrogate pair"):
        plan_jobs([{"prompt": "x\ud800y", "steps": 2}], PlanOptions(rejects=rejects))
    assert json.loads(rejects.read_text())["prompt"] == "x\ud800y"


def test_a_file_of_rejects_is_written_anew_and_nothing_else_is(tmp_path):
    file = tmp_path / "file"
    for _ in range(2):
        with plan_jobs(["x", ""], PlanOptions(on_error="skip", rejects=file)):
            pass
    assert len(file.read_text().splitlines()) == 1
    file.write_text("a prompt of somebody's\n")
    with pytest.raises(PlanError, match="is not a file of rejects"):
        plan_jobs(["x"], PlanOptions(rejects=file))
    assert file.read_text() == "a prompt of somebody's\n"


# --- memory

PEAK = """
import resource, sys
from promptmill.producer.plan import plan_jobs

with plan_jobs({"prompt": f"an image, number {n}", "seed": n} for n in range(int(sys.argv[1]))) as plan:
    assert sum(job.first for job in plan) == plan.images == int(sys.argv[1])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_is_the_same_for_few_jobs_and_for_many():
    few, many = (
        int(subprocess.run([sys.executable, "-c", PEAK, str(jobs)], check=True, stdout=subprocess.PIPE).stdout)
        for jobs in (50_000, 400_000)
    )
    assert many - few < 8_000, "kB: 350,000 jobs, held, are 200,000 kB"


PROMPTS = ("a cat", " a cat\u200b", "a {cat}", "a {red|blue} cat", "", "  ", "x\x00", "ä" * 3, "a" * 10_001, 7, None)


@pytest.mark.parametrize("expansion", [Expansion(), Expansion(plain=True), Expansion(run_seed=3)])
def test_rows_with_a_prompt_alone_are_the_same_jobs_as_with_all_said(expansion: Expansion):
    """The short way of most rows, beside the long one of rows that name their seed too."""
    for prompt in PROMPTS:
        prompts = ["b", "c", prompt]
        said = [{"prompt": one, "seed": derived_seed(expansion.run_seed, at)} for at, one in enumerate(prompts)]
        assert _planned([{"prompt": one} for one in prompts], expansion) == _planned(said, expansion)


def _planned(rows: list[dict[str, Any]], expansion: Expansion) -> list[str]:
    try:
        with plan_jobs(rows, PlanOptions(expansion=expansion)) as plan:
            return ids(plan)
    except PromptFileErrors as error:
        return [str(error)]
