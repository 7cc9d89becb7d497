"""The plan: what prompt files mean, in order, and how it lies in the output."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from promptmill.producer import plan as plan_module
from promptmill.producer import plan_lines, spool
from promptmill.producer.errors import JobError, ModelNameError, PlanError, PromptFileErrors
from promptmill.producer.job import Job, canonical_json
from promptmill.producer.outputs.folder import Folder
from promptmill.producer.outputs.open import open_output
from promptmill.producer.outputs.output import Output, OutputConflict
from promptmill.producer.plan import Plan, PlanOptions, check_run_name, clean_name, plan_jobs, plan_run
from promptmill.producer.plan_files import load_plan, read_run, write_plan
from promptmill.producer.prompts import rows as rows_module
from promptmill.producer.prompts.expand import Expansion
from promptmill.producer.prompts.files import Row
from promptmill.producer.prompts.seeds import derived_seed
from tests.plans import jobs_in, plan_of_jobs

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
        return plan_run(list(map(str, paths)), PlanOptions(defaults))

    return read


def some_jobs(count: int, word: str = "image") -> list[Job]:
    return [Job(prompt=f"{word} {n}", seed=n, width=64, height=64) for n in range(count)]


def ids(plan: Plan) -> list[str]:
    return [job.id for job in plan]


def plan_of(count: int, word: str = "image") -> Plan:
    return plan_of_jobs(some_jobs(count, word))


def plan_lines_of(output: Output) -> list[dict[str, Any]]:
    names = sorted(output.list("plan/"))
    text = "".join(zstandard.ZstdDecompressor().decompress(output.get(name)).decode() for name in names)
    return [json.loads(line) for line in text.splitlines()]


def contents(output: Output) -> dict[str, bytes]:
    return {name: output.get(name) for name in output.list()}


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


# --- as it lies in the output


def test_the_plan_can_be_read_back_from_the_output(output, small_plan_files):
    plan = plan_of(2 * PLAN_FILE_JOBS + 1)
    write_plan(output, "r", plan)
    assert sorted(output.list("plan/")) == [f"plan/0000{number}.jsonl.zst" for number in range(3)]
    lines = plan_lines_of(output)
    assert [line["index"] for line in lines] == list(range(plan.jobs))
    assert [line["id"] for line in lines] == ids(plan)
    assert [Job.from_fields(line["job"]) for line in lines] == jobs_in(plan)


def test_run_json_says_what_the_run_is(output, small_plan_files):
    jobs = [*some_jobs(4), *some_jobs(1), Job(prompt="wide", width=128, height=64)]
    plan = plan_of_jobs(jobs)
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
        "rejected": 0,
        "plan_files": 2,
        "jobs_per_plan_file": PLAN_FILE_JOBS,
        "digest": plan.digest,
        "sources": ["cats.txt"],
        "seeds_end": 6,
        "settings": plan.common,
        "shapes": {jobs[0].shape.key: 4, jobs[5].shape.key: 1},
    }
    assert "width" not in written["settings"]


def test_a_second_write_adopts_the_first(output):
    first = write_plan(output, "r", plan_of(3), ["a.txt"])
    before = contents(output)
    assert write_plan(output, "r", plan_of(3), ["b.txt"]) == first
    assert contents(output) == before


@pytest.mark.parametrize("other", [(4, "image"), (2, "image"), (3, "another")], ids=["longer", "shorter", "other"])
def test_another_plan_under_the_same_name_is_refused_and_changes_nothing(output, other: tuple[int, str]):
    write_plan(output, "r", plan_of(3))
    before = contents(output)
    with pytest.raises(PlanError, match=r"run 'r' at .* has another plan: name this run otherwise"):
        write_plan(output, "r", plan_of(*other))
    assert contents(output) == before


def test_a_write_that_was_killed_before_run_json_is_completed(output, small_plan_files):
    plan = plan_of(2 * PLAN_FILE_JOBS)
    write_plan(output, "r", plan)
    for name in ("run.json", "plan/00001.jsonl.zst"):
        (output.root / name).unlink()
    write_plan(output, "r", plan)
    assert [line["id"] for line in plan_lines_of(output)] == ids(plan)
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


# --- read back from the output


def test_a_plan_loaded_from_the_output_is_the_plan(output, small_plan_files):
    with plan_jobs([*some_jobs(9), *some_jobs(2), Job(prompt="wide", width=128)]) as plan:
        write_plan(output, "r", plan)
        with load_plan(output) as loaded:
            assert list(loaded) == list(plan)
            assert (loaded.digest, loaded.common, loaded.images) == (plan.digest, plan.common, plan.images)
            assert (loaded.shapes, loaded.duplicates, loaded.page_jobs) == (plan.shapes, 2, PLAN_FILE_JOBS)


@pytest.mark.parametrize("lost", ["run.json", "plan/00001.jsonl.zst"])
def test_a_plan_that_is_not_whole_is_refused(output, small_plan_files, lost: str):
    write_plan(output, "r", plan_of(2 * PLAN_FILE_JOBS))
    (output.root / lost).unlink()
    with pytest.raises(PlanError, match=lost):
        load_plan(output)


@pytest.mark.parametrize("damage", ["exchanged", "cut", "another line"])
def test_a_damaged_plan_is_refused(output, small_plan_files, damage: str):
    write_plan(output, "r", plan_of(2 * PLAN_FILE_JOBS))
    first, second = (output.root / f"plan/0000{number}.jsonl.zst" for number in range(2))
    if damage == "exchanged":
        data = first.read_bytes()
        first.write_bytes(second.read_bytes())
        second.write_bytes(data)
    elif damage == "cut":
        first.write_bytes(first.read_bytes()[:-5])
    else:
        first.write_bytes(zstandard.ZstdCompressor().compress(b"{}\n" * PLAN_FILE_JOBS))
    with pytest.raises(PlanError):
        load_plan(output)


def test_a_run_json_of_another_program_is_no_plan(output):
    output.put_once("run.json", b'{"plan_files": 1}')
    with pytest.raises(PlanError, match="does not say what a run is"):
        load_plan(output)


# --- the jobs, one by one or from an index on


def test_a_plan_can_be_entered_anywhere(small_plan_files):
    plan = plan_of(3 * PLAN_FILE_JOBS + 1)
    for index in range(plan.jobs + 1):
        assert [job.index for job in plan.since(index)] == list(range(index, plan.jobs))
    indexes = [0, 3, 4, 11, 12]
    assert [(job.index, plan.whole(job).prompt) for job in plan.at(indexes)] == [(n, f"image {n}") for n in indexes]


texts = st.text(min_size=1, max_size=30).filter(str.strip) | st.sampled_from(
    ['"prompt":"x","seed":1', "\\", 'a "b" \\" c', "\u2028\u3000x", '},"labels":{}', "\n a\tb", "{a|b}", "😀"]
)
sound_texts = texts.filter(lambda text: all((ord(c) > 31 and c != "\x7f") or c in "\n\t" for c in text)).filter(
    lambda text: not any("\ud800" <= c <= "\udfff" for c in text)
)
settings_of_samplers = st.sampled_from(
    [
        {"sampler": "euler"},
        {"sampler": "euler", "timesteps": (999, 499)},
        {"sampler": "euler_a"},
        {"sampler": "ddim", "eta": 0.5},
    ]
)
any_job = st.builds(
    lambda sampling, **fields: Job(**sampling, **fields),
    settings_of_samplers,
    prompt=sound_texts,
    prompt_2=st.none() | sound_texts,
    negative_prompt=st.none() | st.just("") | sound_texts,
    seed=st.integers(0, 2**64 - 1),
    width=st.sampled_from([64, 128, 1024]),
    guidance_scale=st.sampled_from([0, 1, 5.5, 7]),
    model=st.sampled_from(["pocket", "org/name", "C:/a:b {x}"]),
    refiner=st.none() | st.just("org/refiner"),
    target_size=st.none() | st.just((64, 64)),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(any_job, min_size=1, max_size=9))
def test_what_a_plan_says_of_a_job_is_what_the_job_says(jobs: list[Job]):
    """The short way, by kinds of job, gives the same ids, bytes and fields as the job itself."""
    with plan_jobs(jobs) as plan:
        assert jobs_in(plan) == jobs
        assert ids(plan) == [job.id for job in jobs]
        assert [job.shape_key for job in plan] == [job.shape.key for job in jobs]
        assert plan.images == len(set(jobs))
        for planned, job in zip(plan, jobs, strict=True):
            own = {name: value for name, value in job.fields().items() if name not in plan.common}
            assert planned.own_json == canonical_json(own)
            assert plan.common.items() <= job.fields().items()
            assert "prompt" in own and "seed" in own
        lines = zstandard.ZstdDecompressor().decompress(plan.pages[0]).decode().split("\n")[:-1]
        for index, (line, job) in enumerate(zip(lines, jobs, strict=True)):
            assert line == canonical_json({"id": job.id, "index": index, "job": job.fields()})


def test_more_kinds_of_job_than_are_kept_ready_are_planned_all_the_same(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rows_module, "MOST_KINDS", 3)
    monkeypatch.setattr(plan_lines, "MOST_KINDS", 3)
    jobs = [Job(prompt="x", width=8 * (1 + n % 7)) for n in range(30)]
    with plan_of_jobs(jobs) as plan:
        assert jobs_in(plan) == jobs
        assert len(plan.shapes) == plan.images == 7


def test_kinds_of_job_are_forgotten_in_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rows_module, "MOST_KINDS", 3)
    rows = rows_module.Rows({}, None, Expansion())
    kinds = {rows.jobs({"prompt": "x", "steps": 1 + n}, n, "x:1")[0][0] for n in range(30)}
    assert len(kinds) == 30
    assert len(rows._kinds) <= 3


def test_ids_are_compared_over_flushes_of_the_heaps(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(spool, "RECORDS_HELD", 5)
    jobs = some_jobs(40) + some_jobs(40)
    with plan_of_jobs(jobs) as plan:
        assert [job.first for job in plan] == [True] * 40 + [False] * 40
        assert (plan.images, sum(plan.shapes.values())) == (40, 40)


def test_labels_travel_into_the_plan(output):
    rows = [
        ("f", Row(1, {"prompt": "x"}, {"author": "ann", "tags": ["a", {"b": "ü"}]})),
        ("f", Row(2, {"prompt": "y"}, {})),
    ]
    with plan_module._make(rows, "f", PlanOptions(), lambda count: None, True) as plan:
        assert [job.labels for job in plan] == [{"author": "ann", "tags": ["a", {"b": "ü"}]}, None]
        write_plan(output, "r", plan)
        assert plan_lines_of(output)[0]["labels"]["author"] == "ann"


def test_a_label_that_json_cannot_hold_is_a_wrong_row():
    rows = [("f", Row(1, {"prompt": "x"}, {"a": 1, "b": float("nan")}))]
    with pytest.raises(PromptFileErrors, match=r"^f:1: b: cannot be kept as a label"):
        plan_module._make(rows, "f", PlanOptions(), lambda count: None, True)


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
    with pytest.raises(PlanError, match="is no file of rejects"):
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
