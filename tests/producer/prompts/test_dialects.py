"""Other programs' prompt files: kohya's and A1111's option lines, OpenAI's Batch file."""

import json
from pathlib import Path
from typing import Any

import pytest

from promptmill.producer.errors import PromptFileError, PromptFileErrors
from promptmill.producer.plan import Plan, PlanOptions, plan_run
from promptmill.producer.prompts.columns import Reading
from promptmill.producer.prompts.dialects import DIALECTS
from promptmill.producer.prompts.option_lines import KOHYA_SAMPLERS
from promptmill.verbs.reading_options import DIALECT_NAMES


@pytest.fixture
def plan(tmp_path: Path):
    def plan(dialect: str | None, *lines: Any, suffix: str = ".txt") -> Plan:
        path = tmp_path / f"a{suffix}"
        path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
        return plan_run([str(path)], PlanOptions(reading=Reading(dialect=dialect)))

    return plan


def jobs(plan: Plan) -> list[dict[str, Any]]:
    with plan:
        return [{**plan.whole(job).fields(), "labels": job.labels or {}} for job in plan]


def problems(make: Any, *args: Any, **more: Any) -> list[str]:
    with pytest.raises(PromptFileErrors) as caught:
        make(*args, **more)
    return [f"{error.line}: {error.field}: {error.problem}" for error in caught.value.errors]


def has(job: dict[str, Any], **wanted: Any) -> bool:
    return {name: job.get(name) for name in wanted} == wanted


def test_flags_and_table_agree():
    assert tuple(DIALECTS) == DIALECT_NAMES


def test_kohyas_lines(plan):
    first, second, third, fourth = jobs(
        plan(
            "kohya",
            "# a comment",
            "a red apple --n blurry, text --w 128 --h 64 --d 7 --l 5.5 --s 12",
            "a pear --S 4 --g 2 --ss k_euler_a",
            "a self--portrait -- of a {red|red} plum",
            "\ufeffa fig --n",
        )
    )
    assert has(first, prompt="a red apple", negative_prompt="blurry, text", width=128, height=64, seed=7)
    assert has(first, guidance_scale=5.5, num_inference_steps=12)
    assert has(second, prompt="a pear", num_inference_steps=4, guidance_scale=2.0, sampler="euler_a")
    assert has(third, prompt="a self--portrait -- of a red plum")
    assert has(fourth, prompt="a fig", negative_prompt="")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("x --w wide", "width: must be a whole number, got 'wide'"),
        ("x --w", "width: has no value after --w"),
        ("x --zz 5", "--zz: is not an option of kohya's lines here (known: n, w, h, d, s, l, g, ss)"),
        ("x --w 64 --w 128", "width: is given twice, the second time as --w"),
        ("x --l 5 --g 4", "guidance_scale: is given twice, the second time as --g"),
        (
            "x --ss dpmsolver",
            f"sampler: has no counterpart for --ss 'dpmsolver' (known: {', '.join(KOHYA_SAMPLERS)})",
        ),
        ("--n blurry", "prompt: is empty"),
        ("x --d 1e17", "seed: must be written as a whole number: 1e+17 is a float, and those beyond 2^53 are rounded"),
    ],
)
def test_a_line_of_kohyas_that_does_not_parse_is_told(plan, line: str, problem: str):
    assert problems(plan, "kohya", "good --w 64", line) == [f"2: {problem}"]


def test_a1111s_lines(plan):
    first, second, third, *fourth = jobs(
        plan(
            "a1111",
            '--prompt "a red apple, don\'t" --negative_prompt "blurry" --steps 12 --seed 7 --width 128 --height 64',
            '--prompt a pear --cfg_scale 5.5 --sampler_name "DPM++ 2M Karras" --seed -1',
            "a plum",
            '--prompt "a fig" --n_iter 2 --batch_size 2 --sampler_name "Euler a" --restore_faces false',
        )
    )
    assert has(first, prompt="a red apple, don't", negative_prompt="blurry", num_inference_steps=12, seed=7)
    assert has(first, width=128, height=64)
    assert has(second, prompt="a pear", guidance_scale=5.5, sampler="dpm++_2m", sigma_schedule="karras", seed=1)
    assert has(third, prompt="a plum")
    assert [job["prompt"] for job in fourth] == ["a fig"] * 4
    assert len({job["seed"] for job in fourth}) == 4
    assert has(fourth[0], sampler="euler_a")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('--prompt "an apple', "--: is not a line of A1111's options: no closing quotation"),
        ("an apple --steps 5", "'an': is not an option of A1111's lines (known: prompt, "),
        ("--prompt x --stepps 5", "'--stepps': is not an option of A1111's lines (known: prompt, "),
        ("--prompt x --steps many", "num_inference_steps: must be a whole number, got 'many'"),
        ("--prompt x --steps", "--steps: has no value"),
        ("--prompt x --steps 5 6", "'6': is not an option of A1111's lines (known: prompt, "),
        ("--prompt x --prompt y", "--prompt: is given twice"),
        ("--steps 5", "prompt: is missing"),
        ("--prompt x --sampler_name Restart", "sampler: has no counterpart for --sampler_name 'Restart' (known"),
        ("--prompt x --n_iter 0", "--n_iter: must be a whole number from 1 to 1000000, got '0'"),
    ],
)  # fmt: skip
def test_a_line_of_a1111s_that_does_not_parse_is_told_and_no_prompt(plan, line: str, problem: str):
    (found,) = problems(plan, "a1111", "--prompt good", line)
    assert found.startswith(f"2: {problem}")


def test_settings_that_mean_nothing_here_are_named_once(plan):
    with plan("a1111", "--prompt x --tiling true --styles a", "--prompt y --tiling true --styles b") as made:
        said = [line for line in made.warnings(None) if "no meaning" in line]
    assert said == ["has no meaning here and is left out: styles, tiling"]


SIZE_PROBLEM = "size: must be WIDTHxHEIGHT in pixels, such as 1024x1024, or auto; got 'big'"
BODY = {"model": "gpt-image-1", "prompt": "a red apple", "n": 2, "size": "128x64", "quality": "high", "user": None}
REQUEST = {"custom_id": "a-1", "method": "POST", "url": "/v1/images/generations", "body": BODY}


@pytest.mark.parametrize("dialect", [None, "openai"])
def test_an_openai_batch_file_is_known_by_itself(plan, dialect: str | None):
    other = {**REQUEST, "custom_id": "b-1", "body": {"prompt": "a pear", "size": "auto", "response_format": "b64_json"}}
    with plan(dialect, REQUEST, other, suffix=".jsonl") as made:
        assert "has no meaning here and is left out: model, quality, response_format" in made.warnings(None)
        first, second, third = jobs(made)
    assert has(first, prompt="a red apple", width=128, height=64, seed=0, labels={"custom_id": "a-1"})
    assert has(second, prompt="a red apple", width=128, height=64, seed=1, labels={"custom_id": "a-1"})
    assert has(third, prompt="a pear", seed=2, labels={"custom_id": "b-1"})


def test_a_request_may_have_fields_of_a_job_and_a_model_of_ours(plan):
    (job,) = jobs(plan(None, {**REQUEST, "body": {"prompt": "x", "seed": 7, "model": "tiny-random"}}, suffix=".jsonl"))
    assert has(job, seed=7, model="tiny-random")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"url": "/v1/chat/completions"}, "url: must be /v1/images/generations, got '/v1/chat/completions'"),
        ({"method": "GET"}, "method: must be POST, got 'GET'"),
        ({"custom_id": 7}, "custom_id: must be text, got '7'"),
        ({"body": []}, "body: must be a JSON object, got list"),
        ({"body": {**BODY, "size": "big"}}, SIZE_PROBLEM),
        ({"body": {**BODY, "n": 0}}, "num_images_per_prompt: must be a whole number from 1 to 1000000, got '0'"),
        ({"body": {"n": 1}}, "prompt: is missing"),
        ({"body": {**BODY, "size": "100x100"}}, "width: must be a multiple of 8, got 100"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_told(plan, change: dict[str, Any], problem: str):
    assert problems(plan, None, REQUEST, {**REQUEST, **change}, suffix=".jsonl") == [f"2: {problem}"]


def test_with_the_flag_other_rows_are_wrong(plan):
    (found,) = problems(plan, "openai", REQUEST, {"prompt": "x"}, suffix=".jsonl")
    assert found.startswith("2: custom_id: is missing: a request of a Batch file has ")


def test_a_file_of_another_format_is_refused(plan):
    with pytest.raises(PromptFileError, match=r"is not read as kohya's: those files are .txt"):
        plan("kohya", "prompt", "x --w 64", suffix=".csv")


@pytest.mark.parametrize(("value", "count"), [(3, 3), (3.0, 3), (None, 1)])
def test_a_row_may_have_a_number_of_images_of_its_own(plan, value: Any, count: int):
    made = jobs(plan(None, {"prompt": "x", "num_images_per_prompt": value, "seed": 5}, suffix=".jsonl"))
    assert [job["seed"] for job in made] == [5 + n for n in range(count)]


@pytest.mark.parametrize("value", [0, -1, 1.5, "2", True, 10**7])
def test_a_wrong_number_of_images_is_told(plan, value: Any):
    (found,) = problems(plan, None, {"prompt": "x", "num_images_per_prompt": value}, suffix=".jsonl")
    assert found.startswith("1: num_images_per_prompt: must be a whole number from 1 to 1000000, got ")


def test_a_table_may_have_them_too(plan):
    assert len(jobs(plan(None, "prompt,num_images_per_prompt", "x,3", "y,", suffix=".csv"))) == 4
