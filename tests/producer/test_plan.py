"""The plan: what prompt files mean, in order, and how it lies in the output."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from producer import plan as plan_module
from producer.errors import JobError, ModelNameError, PlanError
from producer.folder import Folder
from producer.job import Job
from producer.output import Output, OutputConflict
from producer.outputs import open_output
from producer.plan import Plan, check_run_name, clean_name, common_fields, read_plan, read_run, write_plan

PLAN_FILE_JOBS = 4


@pytest.fixture
def output(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "out")


@pytest.fixture
def small_plan_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few jobs a plan file, so that a small plan has several."""
    monkeypatch.setattr(plan_module, "JOBS_PER_FILE", PLAN_FILE_JOBS)


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Plan]:
    """The plan of rows: text is a .txt, dicts are a .jsonl."""

    def read(*files: str | list[dict[str, Any]], **defaults: Any) -> Plan:
        paths = []
        for number, file in enumerate(files):
            path = tmp_path / (f"{number}.txt" if isinstance(file, str) else f"{number}.jsonl")
            path.write_text(file if isinstance(file, str) else "\n".join(map(json.dumps, file)))
            paths.append(path)
        return read_plan(paths, defaults)

    return read


def plan_of(count: int, word: str = "picture") -> Plan:
    return Plan([Job(prompt=f"{word} {n}", seed=n, width=64, height=64) for n in range(count)])


def plan_lines(output: Output) -> list[dict[str, Any]]:
    names = sorted(output.list("plan/"))
    text = "".join(zstandard.ZstdDecompressor().decompress(output.get(name)).decode() for name in names)
    return [json.loads(line) for line in text.splitlines()]


def contents(output: Output) -> dict[str, bytes]:
    return {name: output.get(name) for name in output.list()}


# --- what prompt files mean


def test_rows_keep_their_order_over_files(read):
    plan = read("one\n\n# no\ntwo", [{"prompt": "three"}], "four")
    assert [job.prompt for job in plan.jobs] == ["one", "two", "three", "four"]


def test_the_seed_is_the_place_in_the_run_unless_given(read):
    plan = read("one\ntwo", [{"prompt": "three", "seed": 99}, {"prompt": "four"}])
    assert [job.seed for job in plan.jobs] == [0, 1, 99, 3]


def test_a_seed_for_all_rows_is_for_all_that_have_none(read):
    plan = read("one", [{"prompt": "two", "seed": 99}], seed=7)
    assert [job.seed for job in plan.jobs] == [7, 99]


def test_a_row_wins_over_the_flags_and_the_flags_over_the_model(read):
    plan = read([{"prompt": "x", "steps": 3}, {"prompt": "y"}], num_inference_steps=4, negative_prompt="dull")
    assert [job.num_inference_steps for job in plan.jobs] == [3, 4]
    assert {(job.negative_prompt, job.width, job.model) for job in plan.jobs} == {("dull", 64, "pocket")}


def test_a_flag_of_none_is_not_given_and_one_of_zero_is(read):
    (job,) = read("x", seed=None, guidance_scale=0).jobs
    assert (job.seed, job.guidance_scale) == (0, 0.0)


def test_each_row_gets_the_defaults_of_its_own_model(read):
    plan = read(
        [{"prompt": "x"}, {"prompt": "y", "model": "org/name"}, {"prompt": "z", "model": "org/name", "width": 512}]
    )
    sizes = [(job.width, job.height, job.num_inference_steps) for job in plan.jobs]
    assert sizes == [(64, 64, 10), (1024, 1024, 50), (512, 1024, 50)]


def test_a_wrong_flag_is_told_once_and_without_a_line(read):
    with pytest.raises(JobError, match=r"^width: must be a multiple of 8, got 1030$"):
        read("one\ntwo", width=1030)
    with pytest.raises(ModelNameError, match=r"^no model 'nonsense'"):
        read("one\ntwo", model="nonsense")


def test_rows_that_mean_the_same_share_one_image(read):
    plan = read([{"prompt": "x", "seed": 1}, {"prompt": "y"}, {"prompt": "x", "seed": 1, "steps": 10}])
    assert plan.ids[0] == plan.ids[2] != plan.ids[1]
    assert list(plan.first_index.values()) == [0, 1]
    assert sum(plan.shapes.values()) == 2


def test_the_jobs_of_each_shape_are_counted(read):
    plan = read([{"prompt": "x"}, {"prompt": "y", "width": 128}, {"prompt": "z"}, {"prompt": "z", "guidance": 1}])
    assert sorted(plan.shapes.values()) == [1, 1, 2]


def test_what_all_jobs_share_is_found_without_prompt_and_seed():
    jobs = [Job(prompt="x", negative_prompt="a"), Job(prompt="x", negative_prompt="a", width=512)]
    common = common_fields(jobs)
    assert common["negative_prompt"] == "a"
    assert {"prompt", "seed", "width"}.isdisjoint(common)
    assert "height" in common
    assert "prompt_2" not in common_fields([Job(prompt="x"), Job(prompt="x", prompt_2="y")])


# --- names of runs


def test_the_default_name_is_the_same_for_the_same_jobs_and_place():
    assert plan_of(3).default_name("cats", "/out") == plan_of(3).default_name("cats", "/out")
    assert plan_of(3).default_name("cats", "/out").startswith("cats-")


def test_the_default_name_is_another_for_other_jobs_or_another_place():
    reordered = Plan(list(reversed(plan_of(3).jobs)))
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


# --- as it lies in the output


def test_the_plan_can_be_read_back_from_the_output(output, small_plan_files):
    plan = plan_of(2 * PLAN_FILE_JOBS + 1)
    write_plan(output, "r", plan)
    assert sorted(output.list("plan/")) == [f"plan/0000{number}.jsonl.zst" for number in range(3)]
    lines = plan_lines(output)
    assert [line["index"] for line in lines] == list(range(len(plan.jobs)))
    assert [line["id"] for line in lines] == plan.ids
    assert [Job.from_fields(line["job"]) for line in lines] == plan.jobs


def test_run_json_says_what_the_run_is(output, small_plan_files):
    jobs = [*plan_of(4).jobs, plan_of(1).jobs[0], Job(prompt="wide", width=128, height=64)]
    plan = Plan(jobs)
    written = write_plan(output, "r", plan, ["cats.txt"])
    assert written == json.loads(output.get("run.json")) == read_run(output)
    created, versions = written.pop("created"), written.pop("versions")
    assert created.endswith("+00:00")
    assert versions.keys() == {"promptmill"}
    assert written == {
        "format": "promptmill-run-1",
        "run": "r",
        "output": output.url,
        "jobs": 6,
        "images": 5,
        "plan_files": 2,
        "digest": plan.digest,
        "sources": ["cats.txt"],
        "settings": common_fields(jobs),
        "shapes": {jobs[0].shape.key: 4, jobs[5].shape.key: 1},
    }
    assert "width" not in written["settings"]


def test_a_second_write_adopts_the_first(output):
    first = write_plan(output, "r", plan_of(3), ["a.txt"])
    before = contents(output)
    assert write_plan(output, "r", plan_of(3), ["b.txt"]) == first
    assert contents(output) == before


@pytest.mark.parametrize("other", [plan_of(4), plan_of(2), plan_of(3, "another")], ids=["longer", "shorter", "other"])
def test_another_plan_under_the_same_name_is_refused_and_changes_nothing(output, other: Plan):
    write_plan(output, "r", plan_of(3))
    before = contents(output)
    with pytest.raises(PlanError, match=r"run 'r' at .* has another plan: name this run otherwise"):
        write_plan(output, "r", other)
    assert contents(output) == before


def test_a_write_that_was_killed_before_run_json_is_completed(output, small_plan_files):
    plan = plan_of(2 * PLAN_FILE_JOBS)
    write_plan(output, "r", plan)
    for name in ("run.json", "plan/00001.jsonl.zst"):
        (output.root / name).unlink()
    write_plan(output, "r", plan)
    assert [line["id"] for line in plan_lines(output)] == plan.ids
    assert read_run(output) is not None


def test_another_plan_is_refused_where_a_killed_write_left_a_part(output):
    write_plan(output, "r", plan_of(3))
    (output.root / "run.json").unlink()
    with pytest.raises(OutputConflict, match="another run name"):
        write_plan(output, "r", plan_of(3, "another"))
    assert read_run(output) is None


def test_a_plan_packed_by_another_zstd_is_the_same_plan(output):
    plan = plan_of(50)
    write_plan(output, "r", plan)
    (output.root / "run.json").unlink()
    file = output.root / "plan/00000.jsonl.zst"
    repacked = zstandard.ZstdCompressor(level=1).compress(zstandard.ZstdDecompressor().decompress(file.read_bytes()))
    assert repacked != file.read_bytes()
    file.write_bytes(repacked)
    write_plan(output, "r", plan)
    assert file.read_bytes() == repacked


@pytest.mark.parametrize("data", [b"", b"[]", b"not json", b"\xff"])
def test_a_run_json_that_is_not_ours_is_refused(output, data: bytes):
    output.put_once("run.json", data)
    with pytest.raises(PlanError, match=r"run\.json is not one of promptmill's"):
        write_plan(output, "r", plan_of(1))


def test_a_source_may_have_any_name(output):
    written = write_plan(output, "r", plan_of(1), [os.fsdecode(b"\xff.txt"), "苹果.txt"])
    assert written["sources"] == ["\ufffd.txt", "苹果.txt"]
