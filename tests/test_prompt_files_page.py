"""docs/prompt-files.md: each example on the page is done as it stands there, and ranges are the job's.

An example is a block of shell lines. `$ cat FILE` shows a file, which is written; `$ promptmill submit ...` is planned,
with `>` before each job and `!` before what is said of a wrong row; any other command is run, and prints what follows.
"""

import io
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from promptmill.producer.errors import JobError, PromptFileErrors
from promptmill.producer.fields import FIELD_NAMES, ROWS
from promptmill.producer.job import Job
from promptmill.producer.plan import Plan, plan_run
from promptmill.verbs.planning import plan_options, prompt_file_options

PAGE = (Path(__file__).parents[1] / "docs" / "prompt-files.md").read_text()
EXAMPLES = re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
SUBMIT = "promptmill submit "


@click.command()
@prompt_file_options
def submit(**given: Any) -> None:
    """The flags of `promptmill submit` that say what files mean."""


def steps(example: str) -> Iterator[tuple[str, str]]:
    """Commands, and the lines under each."""
    for part in re.split(r"^\$ ", example, flags=re.MULTILINE)[1:]:
        command, _, lines = part.partition("\n")
        yield command, lines


def write_file(command: str, lines: str, folder: Path) -> None:
    path = folder / command.removeprefix("cat ")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(lines)


def is_file(command: str) -> bool:
    return command.startswith("cat ") and "|" not in command


def said_by(command: str) -> list[str]:
    """What a submission comes to, in the page's words; each job with all of its fields."""
    given = submit.make_context("submit", shlex.split(command.removeprefix(SUBMIT))).params
    files = given.pop("files")
    try:
        with plan_run(files, plan_options(given)) as plan:
            wrong = [f"! {error}" for error in plan.rejects.first]
            return wrong + [f"> {json.dumps(job)}" for job in jobs_of(plan)]
    except PromptFileErrors as errors:
        return [f"! {line}" for line in str(errors).split("\n")]


def jobs_of(plan: Plan) -> Iterator[dict[str, Any]]:
    for job in plan:
        yield {**plan.whole(job).fields(), "labels": job.labels or {}}


def as_shown(shown: str, said: str) -> str:
    """What was said, as far as the page shows it."""
    if not (shown.startswith("> ") and said.startswith("> ")):
        return said
    job = json.loads(said[2:])
    if not shown.startswith('> {"'):
        return f"> {job['prompt']}"
    names = json.loads(shown[2:])
    return "> " + json.dumps({name: job.get(name) for name in names})


def do(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    before, _, last = command.rpartition(" | ")
    if not last.startswith(SUBMIT):
        done = subprocess.run(command, shell=True, cwd=folder, check=True, capture_output=True, text=True)
        return done.stdout.splitlines()
    if before:
        piped = subprocess.run(before, shell=True, cwd=folder, check=True, capture_output=True).stdout
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(piped)))
    return said_by(last)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("pyarrow", "openpyxl"):
        if library in EXAMPLES[number]:
            pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    for example in EXAMPLES[:number]:
        for command, lines in steps(example):
            if is_file(command):
                write_file(command, lines, tmp_path)
    for command, lines in steps(EXAMPLES[number]):
        if is_file(command):
            write_file(command, lines, tmp_path)
            continue
        said, shown = do(command, tmp_path, monkeypatch), lines.rstrip("\n").splitlines()
        assert [as_shown(*pair) for pair in zip(shown, said, strict=False)] == shown, said
        assert len(said) == len(shown), said


def test_there_are_examples_of_everything() -> None:
    commands = [command for example in EXAMPLES for command, _ in steps(example) if SUBMIT in command]
    flags = {
        option
        for param in submit.params
        if isinstance(param, click.Option)
        for option in (*param.opts, *param.secondary_opts)
    }
    own = {param.name for param in submit.params} - set(FIELD_NAMES) - {"files", "preset"}
    missing = [name for name in own if not any(flag in " ".join(commands) for flag in _flags(name))]
    assert not missing
    mentioned = set(re.findall(r"(?<![\w`-])--[a-z][a-z-]+", "\n".join(commands)))
    assert mentioned <= flags
    for suffix in (".txt", ".jsonl", ".csv", ".gz", ".parquet"):
        assert any(suffix in command for command in commands)


def _flags(name: str | None) -> list[str]:
    return [option for param in submit.params if param.name == name for option in param.opts]


OTHERS = {"refiner_strength": {"refiner": "x"}, "timesteps": {}, "eta": {"sampler": "ddim"}}
RANGES = [name for name, row in ROWS.items() if re.search(r"\d to \d", row.value.words)]


@pytest.mark.parametrize("name", RANGES)
def test_a_fields_range_on_the_page_is_the_jobs(name: str) -> None:
    kind = ROWS[name].value.words
    low, high = map(int, re.findall(r"(\d+) to (\d+)", kind)[0])
    step = int((re.findall(r"multiple of (\d+)", kind) or ["1"])[0])

    def value(number: int) -> Any:
        return [number] * 2 if kind.startswith("two") else [number] if kind.startswith("list") else number

    def job(number: int) -> Job:
        return Job.from_fields({"prompt": "x", **OTHERS.get(name, {}), name: value(number)})

    assert job(low) and job(high)
    for wrong in (low - step, high + step):
        with pytest.raises(JobError):
            job(wrong)
