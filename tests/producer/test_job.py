"""What a job promises: valid from its constructor on, and known by an id that means its pixels."""

import dataclasses
import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptmill.producer.errors import JobError
from promptmill.producer.families.samplers import SAMPLERS
from promptmill.producer.fields import ALIASES, FIELD_NAMES, MAX_SEED, ROWS
from promptmill.producer.job import Job, Shape, canonical_json, canonical_names
from promptmill.producer.values import MAX_PROMPT_CHARS

PLAIN = Job(prompt="a red apple on a blue background")
PLAIN_ID = "da94beacddcbc58e7bb0b8f249bbe977"

FULL = Job(
    prompt="ein Apfel – 苹果 🍎",
    prompt_2="oil painting",
    negative_prompt="",
    negative_prompt_2="blurry",
    seed=MAX_SEED,
    width=832,
    height=1216,
    num_inference_steps=30,
    guidance_scale=7.5,
    sampler="euler",
    model="org/model@main",
    original_size=(1216, 832),
    target_size=(1216, 832),
    crops_coords_top_left=(0, 0),
    negative_original_size=(512, 512),
    negative_target_size=(1024, 1024),
    negative_crops_coords_top_left=(8, 16),
)
FULL_ID = "c0c897e12fc42cdd285f74b8d3b88690"

ANOTHER_VALUE: dict[str, Any] = {
    "prompt": "a green apple",
    "prompt_2": "x",
    "negative_prompt": "x",
    "negative_prompt_2": "x",
    "seed": 1,
    "width": 512,
    "height": 512,
    "num_inference_steps": 49,
    "guidance_scale": 5.5,
    "model": "org/other",
    "original_size": (8, 8),
    "target_size": (8, 8),
    "crops_coords_top_left": (1, 0),
    "negative_original_size": (8, 8),
    "negative_target_size": (8, 8),
    "negative_crops_coords_top_left": (0, 1),
    "sampler": "ddim",
    "timestep_spacing": "trailing",
    "sigma_schedule": "karras",
    "timesteps": [999, 499],
    "sigmas": [14.5, 1.0],
    "eta": 0.5,
    "guidance_rescale": 0.7,
    "guidance_start": 0.2,
    "guidance_end": 0.8,
    "cache_interval": 3,
    "clip_skip": 1,
    "prompt_windows": 2,
    "prompt_weighting": True,
    "denoising_end": 0.8,
    "refiner": "org/refiner",
    "refiner_strength": 0.2,
    "aesthetic_score": 7.5,
    "negative_aesthetic_score": 1.0,
}
WITH: dict[str, dict[str, Any]] = {"eta": {"sampler": "ddim"}, "refiner_strength": {"refiner": "org/refiner"}}
"""What a field needs beside it."""


def job_with(field: str, value: Any) -> Job:
    return Job(**{"prompt": "p", **WITH.get(field, {}), field: value})


def problem_of(field: str, value: Any) -> str:
    with pytest.raises(JobError) as caught:
        job_with(field, value)
    assert caught.value.field == field
    assert str(caught.value) == f"{field}: {caught.value.problem}"
    return caught.value.problem


@pytest.mark.parametrize(
    ("fields", "field", "problem"),
    [
        ({"timesteps": [5], "sigmas": [1.0]}, "sigmas", "cannot be given together with timesteps"),
        ({"refiner_strength": 0.5}, "refiner_strength", "needs a refiner"),
        (
            {"refiner": "a/b", "refiner_strength": 0.5, "denoising_end": 0.8},
            "refiner_strength",
            "cannot be given together with denoising_end",
        ),
        ({"guidance_end": 0.5, "guidance_scale": 1}, "guidance_end", "needs a guidance_scale above 1, got 1"),
        ({"guidance_start": 0.5, "guidance_scale": 0}, "guidance_start", "needs a guidance_scale above 1, got 0"),
        ({"guidance_start": 1.0}, "guidance_start", "must be at least 0 and less than 1, got 1.0"),
        (
            {"guidance_start": 0.5, "guidance_end": 0.5},
            "guidance_start",
            "must be less than guidance_end, got 0.5 and 0.5",
        ),
        ({"eta": 0.5}, "eta", "is a setting of ddim, tcd; the sampler is euler"),
        ({"sigmas": [1.0], "sampler": "lcm"}, "sigmas", "is a setting of euler; the sampler is lcm"),
        ({"timestep_spacing": "trailing", "sampler": "tcd"}, "timestep_spacing", "the sampler is tcd"),
        (
            {"sampler": "heun", "num_inference_steps": 501},
            "num_inference_steps",
            "must be at most 500 with heun, got 501",
        ),
    ],
)
def test_what_fields_say_together_is_checked(fields: dict[str, Any], field: str, problem: str):
    with pytest.raises(JobError, match=problem) as caught:
        Job(prompt="p", **fields)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "off",
    [
        {"eta": 0},
        {"guidance_rescale": 0.0},
        {"guidance_start": 0},
        {"guidance_end": 1},
        {"cache_interval": 1},
        {"clip_skip": 0},
        {"prompt_windows": 1},
        {"prompt_weighting": False},
    ],
)
def test_what_is_off_is_the_same_job_as_what_is_not_said(off: dict[str, Any]):
    assert Job(prompt=PLAIN.prompt, **off).id == PLAIN_ID


def test_only_samplers_that_draw_noise_and_longer_prompts_and_refiners_are_another_shape():
    same: dict[str, Any] = {
        "sampler": "dpm++_2m",
        "timestep_spacing": "trailing",
        "guidance_rescale": 0.5,
        "clip_skip": 1,
        "seed": 3,
    }
    assert Job(prompt="p", **same).shape == Job(prompt="p").shape
    others: list[dict[str, Any]] = [
        {"sampler": "euler_a"},
        {"prompt_windows": 2},
        {"refiner": "a/b"},
        {"guidance_scale": 1.0},
        {"guidance_end": 0.7},
        {"cache_interval": 2},
    ]
    assert len({Job(prompt="p", **other).shape for other in [{}, *others]}) == 7
    assert Job(prompt="p", guidance_end=0.7).shape == Job(prompt="p", guidance_start=0.1, guidance_end=0.9).shape
    assert Job(prompt="p", cache_interval=2).shape == Job(prompt="p", cache_interval=5).shape
    assert Job(prompt="p", sampler="tcd", eta=0.3).stochastic and not Job(prompt="p", sampler="tcd").stochastic


COMPILED: dict[str, Any] = {**ANOTHER_VALUE, "guidance_scale": 1.0, "sampler": "euler_a"}


@pytest.mark.parametrize("field", FIELD_NAMES)
def test_a_field_makes_another_shape_where_its_row_says_so(field: str):
    without = Job(prompt="p", **WITH.get(field, {}))
    assert (job_with(field, COMPILED[field]).shape != without.shape) == bool(ROWS[field].compiles)


def test_a_job_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PLAIN.seed = 2  # type: ignore[misc]


def test_equal_jobs_are_one_in_a_set():
    assert {Job(prompt="p", guidance_scale=5), Job(prompt="p", guidance_scale=5.0)} == {Job(prompt="p")}


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("prompt", "", "is empty"),
        ("prompt", " \t\n", "is empty"),
        ("prompt", None, "must be text, got None"),
        ("prompt", 5, "must be text, got 5"),
        ("prompt", "a\x00b", "has a control character (U+0000) at character 2"),
        ("prompt", "a\rb", "has a control character (U+000D) at character 2"),
        ("prompt", "\x7f", "has a control character (U+007F) at character 1"),
        ("prompt", "ab\ud800", "has half a surrogate pair (U+D800) at character 3"),
        ("prompt", "x" * (MAX_PROMPT_CHARS + 1), "must be at most 10000 characters, got 10001"),
        ("negative_prompt", ["x"], "must be text, got ['x']"),
        ("prompt_2", "\udfff", "has half a surrogate pair (U+DFFF) at character 1"),
        ("negative_prompt_2", True, "must be text, got True"),
        ("seed", -1, "must be from 0 to 18446744073709551615, got -1"),
        ("seed", MAX_SEED + 1, "must be from 0 to 18446744073709551615, got 18446744073709551616"),
        ("seed", 1.5, "must be a whole number, got 1.5"),
        ("seed", "7", "must be a whole number, got '7'"),
        ("seed", True, "must be a whole number, got True"),
        ("seed", float("inf"), "must be a whole number, got inf"),
        ("seed", None, "must be a whole number, got None"),
        ("width", 1030, "must be a multiple of 8, got 1030"),
        ("width", 0, "must be from 8 to 4096, got 0"),
        ("height", 4104, "must be from 8 to 4096, got 4104"),
        ("height", 7, "must be from 8 to 4096, got 7"),
        ("num_inference_steps", 0, "must be from 1 to 1000, got 0"),
        ("num_inference_steps", 1001, "must be from 1 to 1000, got 1001"),
        ("guidance_scale", -0.1, "must be from 0 to 100, got -0.1"),
        ("guidance_scale", float("nan"), "must be from 0 to 100, got nan"),
        ("guidance_scale", float("inf"), "must be from 0 to 100, got inf"),
        ("guidance_scale", "5", "must be a number, got '5'"),
        ("guidance_scale", False, "must be a number, got False"),
        ("sampler", "magic", f"must be one of {', '.join(SAMPLERS)}; got 'magic'"),
        ("sampler", ["euler"], f"must be one of {', '.join(SAMPLERS)}; got ['euler']"),
        ("timestep_spacing", "even", "must be one of leading, linspace, trailing; got 'even'"),
        ("sigma_schedule", "flat", "must be one of uniform, karras, exponential, beta; got 'flat'"),
        ("timesteps", "999", "must be a list of 1 to 1000 numbers, got '999'"),
        ("timesteps", [], "must be a list of 1 to 1000 numbers, got []"),
        ("timesteps", [1000], "must be from 0 to 999, got 1000"),
        ("sigmas", [1, -1.0], "must be from 0 to 100000, got -1.0"),
        ("eta", 1.5, "must be from 0 to 1, got 1.5"),
        ("guidance_rescale", 2, "must be from 0 to 1, got 2"),
        ("cache_interval", 0, "must be from 1 to 1000, got 0"),
        ("cache_interval", 2.5, "must be a whole number, got 2.5"),
        ("clip_skip", 1.5, "must be a whole number, got 1.5"),
        ("prompt_windows", 9, "must be from 1 to 8, got 9"),
        ("prompt_weighting", "yes", "must be true or false, got 'yes'"),
        ("denoising_end", 0, "must be more than 0 and less than 1, got 0"),
        ("denoising_end", 1.0, "must be more than 0 and less than 1, got 1.0"),
        ("refiner", "", "must be a hub id (org/name) or a folder, got an empty name"),
        ("refiner_strength", 0, "must be more than 0 and at most 1, got 0"),
        ("aesthetic_score", 11, "must be from 0 to 10, got 11"),
        ("model", "", "must be a hub id (org/name) or a folder, got an empty name"),
        ("model", "a\nb", "must be a hub id (org/name) or a folder, got an empty name"),
        ("model", 5, "must be text, got 5"),
        ("original_size", (0, 8), "must be from 1 to 65536, got 0"),
        ("original_size", (8,), "must be two whole numbers, got (8,)"),
        ("target_size", "8,8", "must be two whole numbers, got '8,8'"),
        ("target_size", (8, 65537), "must be from 1 to 65536, got 65537"),
        ("crops_coords_top_left", (-1, 0), "must be from 0 to 65536, got -1"),
        ("negative_original_size", (1, None), "must be a whole number, got None"),
        ("negative_target_size", (1, 2, 3), "must be two whole numbers, got (1, 2, 3)"),
        ("negative_crops_coords_top_left", {}, "must be two whole numbers, got {}"),
    ],
)
def test_a_wrong_value_is_refused_with_what_was_got_and_what_is_expected(field: str, value: Any, problem: str):
    assert problem_of(field, value) == problem


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("field", FIELD_NAMES)
@pytest.mark.parametrize(
    "value",
    [10**5000, -(10**5000), nested(100_000), "x" * 10**6, 1e308, object(), b"x", {"a": nested(990)}],
    ids=["huge", "huge negative", "deep", "long", "1e308", "object", "bytes", "deeper than repr goes"],
)
def test_a_monstrous_value_is_refused_in_one_short_line(field: str, value: Any):
    problem = problem_of(field, value)
    assert len(problem) < 200
    assert "\n" not in problem


def test_what_means_the_same_is_one_job():
    assert job_with("guidance_scale", -0.0).id == job_with("guidance_scale", 0).id
    assert job_with("seed", 7.0).id == job_with("seed", 7).id
    assert job_with("target_size", [8, 16]).id == job_with("target_size", (8.0, 16)).id
    assert '"guidance_scale":0.0' in job_with("guidance_scale", -0.0).to_json()


def test_the_largest_seeds_are_seeds():
    assert job_with("seed", MAX_SEED).fields()["seed"] == 2**64 - 1
    assert job_with("seed", MAX_SEED).id != job_with("seed", MAX_SEED - 1).id, "not by way of a float"


def test_newlines_and_tabs_stay_in_a_prompt():
    assert Job(prompt="one\n\ttwo").prompt == "one\n\ttwo"


def test_an_empty_negative_prompt_is_not_a_missing_one():
    missing, empty = Job(prompt="p"), Job(prompt="p", negative_prompt="")
    assert "negative_prompt" not in missing.fields()
    assert empty.fields()["negative_prompt"] == ""
    assert missing.id != empty.id


@pytest.mark.parametrize(("scale", "guided"), [(0, False), (1, False), (1.0001, True), (5, True)])
def test_guidance_at_most_one_is_none(scale: float, guided: bool):
    assert Job(prompt="p", guidance_scale=scale).guided is guided
    assert Job(prompt="p", guidance_scale=scale).shape.guided is guided


def test_the_id_is_what_it_was():
    """A change of these is a change of every object's name in every bucket: raise JOB_FORMAT and say why."""
    assert PLAIN.id == PLAIN_ID
    assert FULL.id == FULL_ID


def test_the_id_is_the_same_in_another_process():
    code = f"from promptmill.producer.job import Job; print(Job(**{FULL.fields()!r}).id)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == FULL_ID


def test_every_field_decides_the_id():
    assert set(ANOTHER_VALUE) == set(FIELD_NAMES)
    with_what_it_needs = [dataclasses.replace(PLAIN, **WITH.get(field, {})) for field in ANOTHER_VALUE]
    others = [
        dataclasses.replace(job, **{field: value})
        for job, (field, value) in zip(with_what_it_needs, ANOTHER_VALUE.items(), strict=True)
    ]
    assert len({*(job.id for job in with_what_it_needs + others)}) == len(ANOTHER_VALUE) + 1


def test_the_json_is_canonical():
    assert canonical_json({"b": [1, 2], "a": "é"}) == '{"a":"é","b":[1,2]}'
    fields = dict(reversed(FULL.fields().items()))
    assert Job.from_fields(fields).to_json() == FULL.to_json()
    assert json.loads(FULL.to_json()) == FULL.fields()


@pytest.mark.parametrize("alias", ALIASES)
def test_a_short_name_is_the_field(alias: str):
    value = {"steps": 9, "guidance": 3.0, "scheduler": "euler"}[alias]
    job = Job.from_fields({"prompt": "p", alias: value})
    assert job == Job.from_fields({"prompt": "p", ALIASES[alias]: value})


def test_a_field_under_both_its_names_is_refused():
    with pytest.raises(JobError, match="steps: is given twice: num_inference_steps"):
        canonical_names({"num_inference_steps": 8, "steps": 9})


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("promt", "prompt"),
        ("negativ_prompt", "negative_prompt"),
        ("step", "steps"),
        ("Seed", "seed"),
        ("hight", "height"),
    ],
)
def test_an_unknown_field_is_told_the_nearest(name: str, near: str):
    with pytest.raises(JobError, match=f"{name}: is not a field of a job; did you mean '{near}'"):
        Job.from_fields({"prompt": "p", name: 1})


def test_an_unknown_field_near_to_none_is_told_all():
    with pytest.raises(JobError, match=r"known: prompt, prompt_2, .*negative_crops_coords_top_left"):
        canonical_names({"zzz": 1})


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31mred", "", "x" * 10_000, "\ud800"])
def test_an_unprintable_field_name_is_shown_in_one_line(name: str):
    with pytest.raises(JobError) as caught:
        canonical_names({name: 1})
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 700


def test_a_job_without_prompt_is_refused():
    with pytest.raises(JobError, match="prompt: is missing"):
        Job.from_fields({"seed": 1})


text = st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n\t"), max_size=30)
side = st.integers(1, 512).map(lambda latents: 8 * latents)
sizes = st.none() | st.tuples(st.integers(1, 65_536), st.integers(1, 65_536))
crops = st.none() | st.tuples(st.integers(0, 65_536), st.integers(0, 65_536))
models = st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters=":/x@"), min_size=1).filter(
    str.strip
)
jobs = st.builds(
    Job,
    prompt=text.filter(str.strip),
    prompt_2=st.none() | text,
    negative_prompt=st.none() | text,
    negative_prompt_2=st.none() | text,
    seed=st.integers(0, MAX_SEED),
    width=side,
    height=side,
    num_inference_steps=st.integers(1, 1000),
    guidance_scale=st.floats(0, 100),
    model=models,
    original_size=sizes,
    target_size=sizes,
    crops_coords_top_left=crops,
    negative_original_size=sizes,
    negative_target_size=sizes,
    negative_crops_coords_top_left=crops,
)


@settings(deadline=None)
@given(jobs)
def test_a_job_comes_back_from_its_json(job: Job):
    again = Job.from_fields(json.loads(job.to_json()))
    assert again == job
    assert again.id == job.id


@settings(deadline=None)
@given(jobs, jobs)
def test_two_jobs_have_one_id_only_if_they_are_equal(one: Job, other: Job):
    assert (one.id == other.id) == (one == other)


@settings(deadline=None)
@given(jobs)
def test_a_shape_comes_back_from_its_key(job: Job):
    assert Shape.from_key(job.shape.key) == job.shape


@pytest.mark.parametrize("model", ["org/name", "C:/models/x", "/a:b/8x8:guided:c", "a@b:c"])
def test_a_models_name_may_look_like_a_key(model: str):
    kinds: dict[str, Any] = {"stochastic": True, "interval": True, "cached": True}
    shape = Shape(model, 1024, 512, True, prompt_windows=3, refiner=model + "%", **kinds)
    assert Shape.from_key(shape.key) == shape
