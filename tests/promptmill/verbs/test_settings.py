"""Settings: flags, then PROMPTMILL_*, then promptmill.toml, then defaults."""

import json

import click
import pytest
import redis

from promptmill.cli import VERBS, WITHOUT_SETTINGS, cli, read_settings
from promptmill.producer.outputs.folder import Folder
from promptmill.producer.plan_files import load_plan
from promptmill.producer.queue.queue import JobQueue
from promptmill.worker.app import make_app
from promptmill.worker.settings import WorkerSettings, slips_in


@pytest.fixture
def steps(client: redis.Redis, at_redis: str, promptmill):
    """Submits, and says how many steps the jobs have got."""

    def submit(*words: str) -> int:
        ran = promptmill("submit", "cats.txt", "--output", "out", *words)
        assert ran.code == 0, ran.err
        queue = JobQueue(client, "test")
        (found,) = {
            claim.job.num_inference_steps for ready in queue.claimable() for claim in queue.claim(ready.shape, 9)
        }
        return found

    return submit


def test_a_flag_wins_over_the_environment_over_the_file_over_the_default(here, monkeypatch, steps):
    assert steps() == 10, "pocket's own"
    (here / "promptmill.toml").write_text("steps = 11\n")
    assert steps() == 11
    (here / "promptmill.toml").write_text("steps = 11\n[submit]\nsteps = 12\n[render]\nsteps = 13\n")
    assert steps() == 12
    monkeypatch.setenv("PROMPTMILL_NUM_INFERENCE_STEPS", "14")
    assert steps() == 14
    assert steps("--steps", "15") == 15


@pytest.mark.parametrize("key", ["steps", "num_inference_steps", "num-inference-steps"])
def test_a_key_is_any_name_of_the_flag(here, steps, key: str):
    (here / "promptmill.toml").write_text(f"{key} = 7\n")
    assert steps() == 7


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in WITHOUT_SETTINGS])
def test_every_spelling_of_every_flag_is_a_variable_and_a_key(here, verb: str):
    command = cli.get_command(click.Context(cli), verb)
    for option in command.params if command else ():
        if not isinstance(option, click.Option):
            continue
        long = [flag.removeprefix("--") for flag in option.opts if flag.startswith("--")]
        assert long and option.envvar == [f"PROMPTMILL_{flag.upper().replace('-', '_')}" for flag in long]
        for key in (*long, *(flag.replace("-", "_") for flag in long)):
            (here / "promptmill.toml").write_text(f"[{verb}]\n{key} = 1\n")
            assert read_settings(here / "promptmill.toml")[verb] == {option.name: ["1"] if option.multiple else "1"}


@pytest.mark.parametrize("name", ["STEPS", "NUM_INFERENCE_STEPS"])
def test_a_variable_is_any_name_of_the_flag(monkeypatch, steps, name: str):
    monkeypatch.setenv(f"PROMPTMILL_{name}", "7")
    assert steps() == 7


@pytest.mark.parametrize("name", ["LEASE", "LEASE_S"])
def test_the_workers_variables_have_all_names(name: str):
    assert WorkerSettings.from_env({f"PROMPTMILL_{name}": "7"}).lease_s == 7


def test_celery_takes_the_workers_concurrency():
    settings = WorkerSettings.from_env({"PROMPTMILL_CONCURRENCY": "3"})
    assert make_app(settings).Worker(pool_cls="threads").concurrency == 3


def test_an_unknown_variable_is_warned_about_with_the_nearest(monkeypatch, promptmill, at_redis):
    monkeypatch.setenv("PROMPTMILL_STPES", "3")
    monkeypatch.setenv("PROMPTMILL_XYZZY", "3")
    ran = promptmill("status")
    assert ran.code == 0
    assert "warning: PROMPTMILL_STPES is not a setting; did you mean PROMPTMILL_STEPS?\n" in ran.err
    assert "warning: PROMPTMILL_XYZZY is not a setting\n" in ran.err
    assert "BROKER" not in ran.err


def test_a_workers_slip_is_told_where_only_celery_reads_it():
    environ = {"PROMPTMILL_LEAES": "3", "PROMPTMILL_STEPS": "3", "PROMPTMILL_LEASE": "3", "OTHER": "3"}
    assert slips_in(environ) == ["PROMPTMILL_LEAES is not a setting of a worker; did you mean PROMPTMILL_LEASE?"]


def test_a_byte_order_mark_in_the_file_is_passed_over(here, steps):
    (here / "promptmill.toml").write_bytes(b"\xef\xbb\xbfsteps = 3\n")  # as Windows' Notepad saves it
    assert steps() == 3


def test_what_may_be_given_several_times_takes_a_list(here, promptmill, at_redis):
    (here / "cats.csv").write_text("text,my_seed,source,promt\na cat,5,shop,x\n")
    (here / "promptmill.toml").write_text('column = ["prompt=text", "seed=my_seed"]\nlabel = "promt"\n')
    assert promptmill("submit", "cats.csv", "--output", "out", "--run", "r").code == 0
    (job,) = load_plan(Folder(here / "out" / "r"))
    assert json.loads(job.own_json)["seed"] == 5 and job.labels == {"source": "shop", "promt": "x"}


def test_an_empty_variable_is_none(monkeypatch, steps):
    monkeypatch.setenv("PROMPTMILL_NUM_INFERENCE_STEPS", "")
    assert steps() == 10


def test_the_file_says_anything_a_flag_can(here, promptmill, at_redis):
    (here / "promptmill.toml").write_text(
        'output = "images"\nrun = "r"\njson = true\ntarget_size = [64, 128]\nnegative-prompt = ""\nguidance = 3\n'
        "lease = 60\nwatch = false\n[worker]\nper_device_batch = 4\n"
    )
    ran = promptmill("submit", "cats.txt")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["output"] == str(here / "images" / "r")
    told = json.loads((here / "images" / "r" / "run.json").read_text())["settings"]
    assert (told["target_size"], told["negative_prompt"], told["guidance_scale"]) == ([64, 128], "", 3.0)


def test_a_run_for_submit_is_not_the_run_that_status_shows(here, promptmill, at_redis):
    (here / "promptmill.toml").write_text('run = "not-submitted-yet"\n')
    assert promptmill("status").code == 0


def test_the_variables_say_where(here, monkeypatch, promptmill, at_redis):
    monkeypatch.setenv("PROMPTMILL_OUTPUT", "images")
    monkeypatch.setenv("PROMPTMILL_RUN", "r")
    ran = promptmill("submit", "cats.txt")
    assert (ran.code, ran.out) == (0, "r\n")
    assert (here / "images" / "r" / "run.json").is_file()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("steps = ", "promptmill.toml: Invalid value (at "),
        ("\xff", "promptmill.toml: 'utf-8' codec can't decode"),
        ("widht = 64", "promptmill.toml: widht is not a setting of any verb; did you mean width?"),
        ("[submit]\nper_device_batch = 4", "promptmill.toml: per_device_batch is not a setting of [submit]"),
        ('[status]\nrun = "r"', "promptmill.toml: run is not a setting of [status]"),
        ('files = ["cats.txt"]', "promptmill.toml: files is not a setting of any verb"),
        ("[sumbit]\nsteps = 3", "promptmill.toml: [sumbit] is not a verb (render, submit, worker, status, list,"),
        ("submit = 3", "promptmill.toml: submit is not a setting of any verb"),
        (
            'width = "wide"',
            "Invalid value for '--width': 'wide' is not a valid integer.\nThat value is from promptmill.toml.",
        ),
        ("seed = 1.5", "Invalid value for '--seed': '1.5' is not a valid integer"),
        ("seed = true", "Invalid value for '--seed': 'True' is not a valid integer"),
        ("width = [64, 64]", "promptmill: width: has 64 twice"),
        ("[submit.seed]\nx = 1", "Invalid value for '--seed'"),
        ("width = 1030", "promptmill: width: must be a multiple of 8, got 1030"),
    ],
)
def test_a_wrong_file_is_a_sentence(here, promptmill, content: str, told: str):
    (here / "promptmill.toml").write_bytes(content.encode("latin-1"))
    ran = promptmill("submit", "cats.txt", "--output", "out")
    assert ran.code == 2
    assert told in "\n".join(ran.err.splitlines()[-2:])
    assert "Traceback" not in ran.err


def test_a_folder_of_the_files_name_is_a_sentence(here, promptmill):
    (here / "promptmill.toml").mkdir()
    ran = promptmill("submit", "cats.txt", "--output", "out")
    assert (ran.code, "Is a directory" in ran.err) == (2, True)


def test_a_wrong_variable_is_a_sentence_that_names_it(monkeypatch, promptmill):
    monkeypatch.setenv("PROMPTMILL_WIDTH", "wide")
    ran = promptmill("submit", "cats.txt", "--output", "out")
    assert ran.code == 2
    assert ran.err.splitlines()[-2:] == [
        "Error: Invalid value for '--width': 'wide' is not a valid integer.",
        "That value is from PROMPTMILL_WIDTH.",
    ]
