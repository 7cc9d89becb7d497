"""The plan as it lies in the output: written once, read back, found by index."""

import json
import os

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from promptmill.producer import plan as plan_module
from promptmill.producer import plan_lines, spool
from promptmill.producer.errors import PlanError, PromptFileErrors
from promptmill.producer.job import Job, canonical_json
from promptmill.producer.outputs.output import OutputConflict
from promptmill.producer.plan import PlanOptions, plan_jobs
from promptmill.producer.plan_files import load_plan, read_run, write_plan
from promptmill.producer.prompts import rows as rows_module
from promptmill.producer.prompts.expand import Expansion
from promptmill.producer.prompts.files import Row
from tests.plans import jobs_in, plan_of_jobs
from tests.producer.small_plans import PLAN_FILE_JOBS, contents, ids, plan_lines_of, plan_of, some_jobs


@pytest.fixture
def small_plan_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few jobs a plan file, so that a small plan has several."""
    monkeypatch.setattr(plan_module, "JOBS_PER_FILE", PLAN_FILE_JOBS)


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
        "image_format": "png",
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
    with pytest.raises(PlanError, match=r"run 'r' at .* already holds a different plan; pass another name"):
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
    with pytest.raises(PlanError, match="does not describe a run"):
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
