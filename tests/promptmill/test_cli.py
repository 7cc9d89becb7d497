"""The command line: what it takes, what it prints where, how it ends."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from promptmill.cli import VERBS, cli
from promptmill.producer.families.samplers import SAMPLERS
from promptmill.producer.fields import FIELD_NAMES
from promptmill.producer.job import Job
from promptmill.producer.layout import image_name
from promptmill.producer.models import BUILT_IN, DEFAULT_MODEL, TINY_RANDOM, model_defaults
from promptmill.producer.outputs.folder import Folder
from promptmill.producer.plan import plan_run
from promptmill.producer.queue.ledger import Ledger
from promptmill.producer.queue.queue import JobQueue
from tests.images import image_of
from tests.plans import read_jobs

NO_REDIS = "redis://127.0.0.1:1"
A_CAT = Job(prompt="a cat", model=DEFAULT_MODEL, **model_defaults(DEFAULT_MODEL).job_fields())


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


def submitted(client: redis.Redis) -> list[Job]:
    """The jobs in the queue, claimed."""
    queue = JobQueue(client, "test")
    claims = [claim for ready in queue.claimable() for claim in queue.claim(ready.shape, 100)]
    return [claim.job for claim in sorted(claims, key=lambda claim: claim.index)]


# --- what goes wrong is one sentence


@pytest.mark.parametrize("verb", ["submit", "render"])
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["missing.txt"], "promptmill: missing.txt: no such file"),
        (["cats.docx"], "promptmill: cats.docx: is not a known prompt file"),
        (["bad.jsonl"], "promptmill: bad.jsonl:2: width: must be a multiple of 8, got 1030"),
        (["cache.csv"], "promptmill: cache.csv:3: cache_interval: must be from 1 to 1000, got 0"),
        (["binary.txt"], "promptmill: binary.txt:1: is not UTF-8 at byte 1 of the line"),
        (["cats.txt", "--width", "1030"], "promptmill: width: must be a multiple of 8, got 1030"),
        (["cats.txt", "--width", "wide"], "Error: Invalid value for '--width': 'wide' is not a valid integer."),
        (["cats.txt", "--guidance", "nan"], "promptmill: guidance_scale: must be from 0 to 100, got nan"),
        (["cats.txt", "--target-size", "8"], "'8' is not two whole numbers such as 1024,1024"),
        (["cats.txt", "--wdith", "64"], "No such option '--wdith'. (Did you mean one of: '--dialect', '--width'?)"),
        (["cats.txt", "--sampler", "magic"], f"promptmill: sampler: must be one of {', '.join(SAMPLERS)}; got 'magic'"),
        (["cats.txt", "--model", "./no-model"], "promptmill: no model './no-model'"),
        (["cats.txt", "--model", "folder"], "promptmill: folder is not a model folder: it has no model_index.json"),
        (["cats.txt", "--run", "a/b"], "promptmill: run name 'a/b': use letters"),
        (["cats.txt", "--output", "cats.txt"], "cats.txt is not a folder"),
        (["cats.txt", "--output", "s3://bucket"], "promptmill: output 's3://bucket': there is no storage s3://"),
        (["cats.txt", "--output", "gs://"], "promptmill: output 'gs://': the bucket is missing"),
        (["cats.txt", "--broker", NO_REDIS], f"promptmill: no Redis at {NO_REDIS}: "),
        (["cats.txt", "--broker", "nonsense"], "promptmill: broker 'nonsense': "),
        ([], "Error: Missing argument 'FILE...'."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_the_user_can_mend_is_one_sentence_and_exit_code_2(here, promptmill, verb, words, told):
    (here / "cats.docx").touch()
    (here / "folder").mkdir()
    (here / "binary.txt").write_bytes(b"\xff")
    (here / "bad.jsonl").write_text('{"prompt": "x"}\n{"prompt": "x", "width": 1030}\n')
    (here / "cache.csv").write_text("prompt,cache_interval\nx,3\nx,0\n")
    ran = promptmill(verb, "--output", "out", *words)
    assert ran.code == 2
    assert told in last_line(ran.err)
    assert "Traceback" not in ran.err
    assert ran.out == ""


def test_all_wrong_rows_are_told_a_line_each(here, promptmill):
    (here / "bad.jsonl").write_text('{"prompt": ""}\n{"prompt": "x"}\n{}\n')
    ran = promptmill("submit", "bad.jsonl", "--output", "out")
    assert ran.code == 2
    assert ran.err == "promptmill: bad.jsonl:1: prompt: is empty\nbad.jsonl:3: prompt: is missing\n"


def test_nothing_is_written_for_a_wrong_file(here, promptmill):
    assert promptmill("submit", "missing.txt", "--output", "out").code == 2
    assert not (here / "out").exists()


def test_a_redis_that_refuses_to_write_is_a_sentence(client, at_redis, promptmill):
    client.config_set("maxmemory", 1)
    try:
        ran = promptmill("submit", "cats.txt", "--output", "out")
    finally:
        client.config_set("maxmemory", 0)
    assert ran.code == 2
    assert last_line(ran.err).startswith("promptmill: Redis: ")
    assert "maxmemory" in last_line(ran.err)


def test_another_plan_under_a_name_is_a_sentence(at_redis, here, promptmill):
    assert promptmill("submit", "cats.txt", "--output", "out", "--run", "r").code == 0
    ran = promptmill("submit", "cats.txt", "--output", "out", "--run", "r", "--seed", "9")
    assert ran.code == 2
    assert "has another plan" in last_line(ran.err)


def test_an_unknown_verb_is_told(promptmill):
    ran = promptmill("rendr", "cats.txt")
    assert ran.code == 2
    assert "rendr" in last_line(ran.err)


# --- flags


@pytest.mark.parametrize("field", [name for name in FIELD_NAMES if name != "prompt"])
@pytest.mark.parametrize("verb", ["submit", "render"])
def test_every_field_is_a_flag_with_a_dash_or_an_underscore(verb: str, field: str):
    command = cli.get_command(None, verb)  # type: ignore[arg-type]
    assert command is not None
    option = next(param for param in command.params if param.name == field)
    assert f"--{field.replace('_', '-')}" in option.opts
    assert f"PROMPTMILL_{field.upper()}" in (option.envvar or ())


@pytest.mark.parametrize(
    "flag", ["--num_inference_steps", "--num-inference-steps", "--steps", "--num_inference_steps="]
)
def test_steps_have_all_their_names(client, at_redis, promptmill, flag: str):
    words = [f"{flag}3"] if flag.endswith("=") else [flag, "3"]
    assert promptmill("submit", "cats.txt", "--output", "out", *words).code == 0
    assert {job.num_inference_steps for job in submitted(client)} == {3}


def test_flags_are_what_the_jobs_have(client, at_redis, promptmill):
    values = {
        "prompt_2": "oil",
        "negative_prompt": "",
        "negative_prompt_2": "dull",
        "seed": 2**64 - 1,
        "width": 128,
        "height": 64,
        "num_inference_steps": 5,
        "guidance_scale": 1.0,
        "sampler": "euler",
        "model": "org/name",
        "original_size": (8, 16),
        "target_size": (64, 128),
        "crops_coords_top_left": (0, 8),
        "negative_original_size": (16, 8),
        "negative_target_size": (24, 8),
        "negative_crops_coords_top_left": (3, 4),
    }
    words = []
    for name, value in values.items():
        words += [f"--{name}", "x".join(map(str, value)) if isinstance(value, tuple) else str(value)]
    assert promptmill("submit", "cats.txt", "--output", "out", *words).code == 0
    assert submitted(client) == [Job(prompt="a cat", **values), Job(prompt="another cat", **values)]  # type: ignore[arg-type]


def test_a_row_wins_over_a_flag(client, at_redis, here, promptmill):
    (here / "a.jsonl").write_text('{"prompt": "x", "steps": 2}\n{"prompt": "y"}')
    assert promptmill("submit", "a.jsonl", "--output", "out", "--steps", "3").code == 0
    assert [job.num_inference_steps for job in submitted(client)] == [2, 3]


# --- submit


def test_submit_prints_the_runs_name_and_nothing_else_on_stdout(client, at_redis, promptmill):
    ran = promptmill("submit", "cats.txt", "--output", "out")
    assert ran.code == 0
    assert re.fullmatch(r"cats-[0-9a-f]{6}\n", ran.out)
    assert Ledger(client).status(ran.out.strip()).images == 2
    assert "2 jobs, 2 images: 2 enqueued now, 0 were there" in ran.err


def test_submit_json_is_one_object(at_redis, here, promptmill):
    Folder(here / "out").child("r").put_once(image_name(A_CAT.id), image_of(A_CAT))
    ran = promptmill("submit", "cats.txt", "cats.txt", "--output", "out", "--run", "r", "--json", "--seed", "0")
    assert json.loads(ran.out) == {
        "run": "r",
        "output": str(here / "out" / "r"),
        "jobs": 4,
        "images": 2,
        "present": 1,
        "enqueued": 1,
        "failed": 0,
        "revoked": 0,
        "broken": 0,
        "taken": 0,
        "taken_names": [],
    }
    assert len(ran.out.splitlines()) == 1


def test_the_same_submission_again_is_the_same_run_and_enqueues_nothing(at_redis, promptmill):
    first = json.loads(promptmill("submit", "cats.txt", "--output", "out", "--json").out)
    again = json.loads(promptmill("submit", "cats.txt", "--output", "./out/", "--json").out)
    assert again == {**first, "enqueued": 0}


def test_images_that_will_be_noise_are_announced(at_redis, here, promptmill):
    assert "NOISE" in promptmill("submit", "cats.txt", "--output", "out", "--model", TINY_RANDOM).err
    assert "pocket: promptmill's own tiny SDXL" in promptmill("submit", "cats.txt", "--output", "out").err
    assert "NOISE" not in promptmill("submit", "cats.txt", "--output", "out", "--model", "org/name").err


def test_a_prompt_file_may_have_any_name(client, at_redis, here, promptmill):
    name = os.fsdecode(b"\xff cats.txt")
    (here / name).write_text("a cat")
    ran = promptmill("submit", name, "--output", "out")
    assert (ran.code, len(submitted(client))) == (0, 1)


def test_a_file_that_grew_is_the_same_run_and_an_edited_one_asks(client, at_redis, here, promptmill):
    submit = ("submit", "cats.txt", "--output", "out")
    run = promptmill(*submit).out
    (here / "cats.txt").write_text((here / "cats.txt").read_text() + "a third cat\n")
    grown = promptmill(*submit)
    assert grown.out == run
    assert "3 jobs, 3 images: 1 enqueued now" in grown.err
    lines = (here / "cats.txt").read_text().splitlines()
    (here / "cats.txt").write_text("\n".join([lines[0], "edited", lines[2]]))
    asked = promptmill(*submit)
    assert (asked.code, asked.out) == (2, "")
    assert "1 job is new, 1 gone, 2 kept; --append" in asked.err
    assert promptmill(*submit, "--append", "--replace-plan").code == 2
    assert "4 jobs, 4 images: 1 enqueued now" in promptmill(*submit, "--append").err
    (here / "dogs.txt").write_text("a dog\n")
    assert "--run NAME" in promptmill("submit", "dogs.txt", "--output", "out", "--append").err
    more = promptmill("submit", "dogs.txt", "--output", "out", "--append", "--run", run.strip())
    assert "5 jobs, 5 images: 1 enqueued now" in more.err
    replaced = promptmill("submit", "dogs.txt", "--output", "out", "--replace-plan", "--run", run.strip())
    assert "1 job, 1 image: 1 enqueued now" in replaced.err


# --- render, where there is nothing to render


def test_what_is_not_an_image_under_an_images_name_is_warned_of(at_redis, here, promptmill):
    out = Folder(here / "out").child("r")
    jobs = read_jobs([here / "cats.txt"], {})
    out.put_once(image_name(jobs[0].id), image_of(jobs[0])[:-20])
    out.put_once(image_name(jobs[1].id), b"my notes")
    ran = promptmill("submit", "cats.txt", "--output", "out", "--run", "r")
    assert "warning: 1 image is there, but cut off or empty: to be rendered anew" in ran.err
    assert (
        f"taken by what is not the job's image, so that it will fail:\n  {out.url}/{image_name(jobs[1].id)}" in ran.err
    )
    assert "2 enqueued now" in ran.err


def test_render_of_what_is_there_starts_nothing_and_says_so(here, promptmill):
    plan = plan_run([str(here / "cats.txt")])
    run = plan.default_name("cats", str(here / "out"))
    for job in plan:
        Folder(here / "out").child(run).put_once(image_name(job.id), image_of(plan.whole(job)))
    ran = promptmill("render", "cats.txt", "--output", "out", "--broker", NO_REDIS)
    assert ran.code == 0
    assert ran.out == f"{here}/out/{run}/images\n"
    assert "nothing to render: all 2 images are there already" in ran.err
    said = json.loads(promptmill("render", "cats.txt", "--broker", NO_REDIS, "--json").out)
    assert (said["run"], said["images"], said["present"], said["rendered"], said["failed"]) == (run, 2, 2, 0, 0)


# --- help


@pytest.mark.parametrize(
    "words", [["--help"], ["-h"], *([verb, "--help"] for verb in VERBS), ["--version"]], ids=" ".join
)
def test_help_is_data(promptmill, words: list[str]):
    ran = promptmill(*words)
    assert ran.code == 0
    assert ran.out
    assert ran.err == ""


def test_every_verb_is_listed_and_is_the_command_of_its_name(promptmill):
    listed = promptmill("--help").out
    for verb in VERBS:
        assert verb in listed
        assert cli.get_command(None, verb).name == verb  # type: ignore[arg-type,union-attr]


def test_the_help_names_the_default_model(promptmill):
    assert all(model in promptmill("submit", "--help").out for model in BUILT_IN)


HEAVY = ("jax", "flax", "celery", "google.cloud", "transformers", "numpy", "PIL")


def test_submit_help_loads_nothing_heavy(here, capsys):
    """Its time is printed and not asserted: machines differ."""
    code = f"""
import sys, time
started = time.perf_counter()
sys.argv = ["promptmill", "submit", "--help"]
from promptmill.cli import main
try:
    main()
finally:
    print("seconds:", round(time.perf_counter() - started, 3), file=sys.stderr)
    print("heavy:", [name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=here)
    assert "--num-inference-steps" in ran.stdout
    assert "heavy: []" in ran.stderr
    with capsys.disabled():
        print(f"\npromptmill submit --help: {ran.stderr.splitlines()[0]}")


def test_python_m_is_the_same_command(here):
    words = [sys.executable, "-m", "promptmill", "submit", "missing.txt", "--output", "out"]
    ran = subprocess.run(words, capture_output=True, text=True, cwd=here)
    assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", "promptmill: missing.txt: no such file\n")


def test_a_reader_that_has_seen_enough_ends_the_command_quietly(here: Path, at_redis):
    read_end, write_end = os.pipe()
    os.close(read_end)
    words = [sys.executable, "-m", "promptmill", "status"]
    ran = subprocess.run(words, stdout=write_end, stderr=subprocess.PIPE, text=True, cwd=here)
    os.close(write_end)
    assert (ran.returncode, ran.stderr) == (0, "")
