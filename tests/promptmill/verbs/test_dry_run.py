"""`--dry-run`: what a run would be, with nothing written anywhere."""

import json
from pathlib import Path

import pytest
import redis

from promptmill.producer.estimate import DEVICES
from promptmill.producer.layout import image_name
from promptmill.producer.outputs.folder import Folder
from promptmill.producer.queue.keys import WORKERS
from promptmill.producer.queue.workers import WorkerReport, Workers
from promptmill.verbs import dry_run
from promptmill.verbs.planning import stem_of
from tests.images import image_of
from tests.plans import read_jobs

REAL = ("--model", "stabilityai/stable-diffusion-xl-base-1.0", "--steps", "20")


@pytest.fixture(params=["submit", "render"])
def dry(request, here, promptmill, client, at_redis):
    """Runs a verb with --dry-run and checks that nothing was written."""

    def run(*words: str):
        before = set(here.rglob("*")), client.keys()
        ran = promptmill(request.param, *words, "--output", "out", "--dry-run")
        assert (set(here.rglob("*")), client.keys()) == before
        return ran

    return run


def test_a_dry_run_says_what_the_run_would_be(here, dry):
    (here / "a.jsonl").write_text(
        '{"prompt": "x"}\n{"prompt": "x", "seed": 0}\n{"prompt": "y", "width": 7}\n{"prompt": "z", "width": 512}\n'
    )
    ran = dry("a.jsonl", *REAL, "--json", "--on-error", "skip", "--rejects", "bad.jsonl", "--device", "v5e", "-n", "2")
    assert ran.code == 0
    said = json.loads(ran.out)
    estimate = said.pop("estimates")[0]
    assert {name: said[name] for name in ("rows", "rejected", "jobs", "images", "duplicates", "to_render")} == {
        "rows": 4,
        "rejected": 1,
        "jobs": 6,
        "images": 6 - 2,
        "duplicates": 2,
        "to_render": 4,
    }
    assert sorted(said["shapes"].values()) == [2, 2]
    assert said["compiles"] == 2
    assert said["rejects"] == ["a.jsonl:3: width: must be from 8 to 4096, got 7"]
    assert (estimate["device"], estimate["devices"]) == ("v5e", 1)
    assert estimate["seconds"] == pytest.approx(2 / 0.438 + 2 / 0.438 / 2, rel=0.03)  # 512x1024 is half the pixels


def test_it_says_it_in_words_and_names_what_it_rests_on(dry):
    ran = dry("cats.txt", *REAL, "--device", "v6e", "--devices", "4", "--cost-per-device-hour", "2.7")
    assert ran.code == 0
    assert "images     2 distinct, 0 duplicate jobs" in ran.out
    assert "compiles   1 in each worker" in ran.out
    assert "1.36 images/s per device" in ran.out
    assert "at 2.7 per hour" in ran.out
    assert "under 0.01 device-hours, under 0.01 to 0.0368 at 1.2 to 90 per hour" in dry(
        *("cats.txt", *REAL, "--device", "v6e", "--cost-per-device-hour", "1.2-90")
    ).out.replace("\n", " ")


def test_live_workers_are_the_measurement_and_are_left_as_they_are(client, dry):
    Workers(client).report(WorkerReport("w", "rendering", "tpu", devices=8, images_per_s=4.0))
    client.hset(WORKERS, "dead", '{"name": "dead", "state": "ready", "at": 1.0}')
    (estimate,) = json.loads(dry("cats.txt", *REAL, "--json").out)["estimates"]
    assert (estimate["devices"], estimate["seconds"]) == (8, 0.5)
    assert estimate["basis"].startswith("1 worker at this moment")
    assert client.hexists(WORKERS, "dead")
    (estimate,) = json.loads(dry("cats.txt", *REAL, "--json", "--images-per-s", "2").out)["estimates"]
    assert (estimate["seconds"], estimate["basis"]) == (1.0, "--images-per-s 2, of one device")
    (estimate,) = json.loads(dry("cats.txt", *REAL, "--json", "--device", "cpu").out)["estimates"]
    assert estimate["device"] == "cpu"


def test_where_rows_are_wrong_a_run_that_would_stop_ends_with_2(here, dry):
    (here / "bad.jsonl").write_text('{"prompt": "x"}\n{}\n')
    ran = dry("bad.jsonl")
    assert ran.code == 2
    assert "wrong      bad.jsonl:2: prompt: is missing" in ran.out
    assert "the run would not start" in ran.err


def test_a_table_of_a_header_alone_has_no_prompts(here, dry):
    (here / "header.csv").write_text("prompt,steps\n")
    ran = dry("header.csv")
    assert (ran.code, ran.err.splitlines()[-1]) == (2, "the run would not start: there are no prompts")


def test_what_is_in_the_output_is_not_to_be_rendered(here, promptmill):
    (job, _) = read_jobs([here / "cats.txt"], {})
    Folder(here / "out").child("r").put_once(image_name(job.id), image_of(job))
    ran = promptmill("render", "cats.txt", "--output", "out", "--run", "r", "--dry-run", "--json")
    said = json.loads(ran.out)
    assert (said["images"], said["present"], said["to_render"]) == (2, 1, 1)


def test_of_a_run_that_has_changed_it_says_what_is_new_gone_and_kept(here, dry, promptmill, at_redis):
    """As the submission itself would; `dry` sees that nothing is written."""
    submit = ("--output", "out", "--run", "r")
    assert json.loads(dry("cats.txt", *submit, "--json").out)["changes"] is None, "a new run"
    assert promptmill("submit", "cats.txt", *submit).code == 0
    same = json.loads(dry("cats.txt", *submit, "--json").out)["changes"]
    assert same == {"new": 0, "gone": 0, "kept": 2, "refusal": None}
    lines = (here / "cats.txt").read_text().splitlines()
    (here / "cats.txt").write_text("\n".join([*lines, "a third"]))
    grown = dry("cats.txt", *submit)
    assert (grown.code, "changes    1 job new, 0 gone, 2 kept\n" in grown.out) == (0, True)
    (here / "cats.txt").write_text("\n".join([lines[0], "edited", "a third"]))
    edited = dry("cats.txt", *submit)
    assert (edited.code, "changes    2 jobs new, 1 gone, 1 kept\n" in edited.out) == (2, True)
    assert "the run would not start: run 'r' at " in edited.err and "--append renders what is new" in edited.err
    assert dry("cats.txt", *submit, "--append").code == 0
    (here / "dogs.txt").write_text("a dog\n")
    other = dry("dogs.txt", *submit, "--append", "--json")
    assert json.loads(other.out)["changes"] == {"new": 1, "gone": 2, "kept": 0, "refusal": None}


def test_without_a_redis_the_table_is_taken_unless_one_was_named(promptmill, monkeypatch):
    words = ("submit", "cats.txt", "--output", "out", "--dry-run", "--json", *REAL)
    monkeypatch.setattr("promptmill.producer.broker.DEFAULT_URL", "redis://127.0.0.1:1")
    assert len(json.loads(promptmill(*words).out)["estimates"]) == len(DEVICES)
    assert promptmill(*words, "--broker", "redis://127.0.0.1:1").code == 2


@pytest.mark.parametrize("cost", ["x", "3-1", "-1", "1-", "nan"])
def test_a_cost_that_is_none_is_refused(promptmill, cost: str):
    ran = promptmill("submit", "cats.txt", "--output", "out", "--dry-run", "--cost-per-device-hour", cost)
    assert ran.code == 2
    assert "or a range such as 1.2-3.0" in ran.err


def test_the_command_lines_lists_are_those_of_the_parts_that_are_loaded_later():
    assert tuple(DEVICES) == dry_run.KINDS


# --- what the plan's flags do


@pytest.mark.parametrize(
    ("file", "stem"),
    [
        ("-", "stdin"),
        ("a/prompts.csv", "prompts"),
        ("prompts.v2.jsonl.gz", "prompts.v2"),
        ("gs://bucket/folder/p.parquet.zst", "p"),
        ("hf://owner/name?split=train", "name"),
        ("prompts/*.csv", "*"),
    ],
)
def test_a_run_is_called_after_its_first_file(file: str, stem: str):
    assert stem_of(file) == stem


def test_several_values_of_a_flag_are_each_rendered(here: Path, promptmill, at_redis):
    ran = promptmill("submit", "cats.txt", "--output", "out", "--run", "r", "--steps", "2,3", "--guidance", "1,5")
    assert ran.code == 0, ran.err
    assert "8 jobs, 8 images" in ran.err
    settings = json.loads((here / "out/r/run.json").read_text())["settings"]
    assert "num_inference_steps" not in settings and settings["width"] == 64


def test_skipped_rows_are_told_and_kept(here: Path, promptmill, at_redis):
    (here / "bad.jsonl").write_text('{"prompt": "x"}\n{}\n{"prompt": ""}\n')
    words = ("submit", "bad.jsonl", "--output", "out", "--run", "r", "--on-error", "skip", "--rejects", "no.jsonl")
    ran = promptmill(*words)
    assert (ran.code, ran.out) == (0, "r\n")
    assert "skipped: bad.jsonl:2: prompt: is missing\nskipped: bad.jsonl:3: prompt: is empty\n" in ran.err
    told = (here / "no.jsonl").read_text()
    assert told == (here / "out/r/rejects.jsonl").read_text()
    assert [json.loads(line)["_rejected"]["line"] for line in told.splitlines()] == [2, 3]


def test_a_file_of_rejects_that_cannot_be_written_is_a_sentence(promptmill):
    ran = promptmill("submit", "cats.txt", "--output", "out", "--rejects", "no/such/folder.jsonl")
    assert ran.code == 2
    assert ran.err.endswith("promptmill: no/such/folder.jsonl: No such file or directory\n")


def test_prompts_may_come_from_standard_input(here: Path, promptmill, at_redis, monkeypatch):
    with (here / "cats.txt").open("rb") as file:
        monkeypatch.setattr("sys.stdin", type("In", (), {"buffer": file}))
        ran = promptmill("submit", "-", "--output", "out")
    assert ran.code == 0, ran.err
    assert ran.out.startswith("stdin-")
    assert "2 jobs" in ran.err


def test_files_may_be_named_by_a_pattern(here: Path, promptmill, at_redis):
    (here / "more.txt").write_text("a dog\n")
    ran = promptmill("submit", "*.txt", "--output", "out")
    assert ran.code == 0, ran.err
    assert "3 jobs" in ran.err
    assert ran.out.startswith("run-")


def test_a_bounded_submission_that_fits_does_not_wait(client: redis.Redis, promptmill, at_redis):
    ran = promptmill("submit", "cats.txt", "--output", "out", "--max-pending", "2", "--priority", "urgent")
    assert ran.code == 0, ran.err
    assert client.hget(f"promptmill:run:{ran.out.strip()}", "priority") == "urgent"


def test_a_wrong_value_among_several_is_told_once_and_without_a_line(promptmill):
    ran = promptmill("submit", "cats.txt", "--output", "out", "--steps", "2,0")
    assert (ran.code, ran.err) == (2, "promptmill: num_inference_steps: must be from 1 to 1000, got 0\n")
