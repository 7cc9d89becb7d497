"""What a terminal's user expects: suggestions, completion, quiet, no colour, and errors as JSON."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from promptmill.cli import VERBS
from promptmill.producer.families.presets import PRESETS
from promptmill.producer.families.samplers import SAMPLERS
from tests.promptmill.conftest import Command


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("sumbit", "no verb 'sumbit'; did you mean 'submit'?"),
        ("import_modle", "no verb 'import_modle'; did you mean 'import-model'?"),
        ("frobnicate", "no verb 'frobnicate'; `promptmill --help` lists them"),
    ],
)
def test_a_mistyped_verb_is_told_the_nearest(promptmill: Command, typed: str, told: str):
    ran = promptmill(typed, "cats.txt")
    assert (ran.code, ran.out) == (2, "")
    assert f"Error: {told}\n" in ran.err


@pytest.mark.parametrize("closed", ["2>&-", "2>&- >&-", "<&- >&- 2>&-"])
def test_a_standard_stream_that_the_shell_closed_is_not_missed(here: Path, closed: str) -> None:
    program = Path(sys.executable).with_name("promptmill")
    command = f"{program} submit cats.txt --output out --dry-run --json {closed}"
    assert subprocess.run(["sh", "-c", command], cwd=here).returncode == 0


def test_a_closed_standard_input_has_no_prompts(here: Path) -> None:
    program = Path(sys.executable).with_name("promptmill")
    command = f"{program} submit - --output out --dry-run <&-"
    ran = subprocess.run(["sh", "-c", command], cwd=here, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr.splitlines()[-1]) == (2, "the run would not start: there are no prompts")


def completions(words: str) -> list[str]:
    """What the shell is offered after `words`, by click's own protocol for bash."""
    environ = {**os.environ, "_PROMPTMILL_COMPLETE": "bash_complete", "COMP_WORDS": words}
    environ["COMP_CWORD"] = str(len(words.split(" ")) - 1)
    ran = subprocess.run(
        [str(Path(sys.executable).with_name("promptmill"))], env=environ, capture_output=True, text=True
    )
    return [line.partition(",")[2] for line in ran.stdout.splitlines()]


def test_verbs_samplers_and_presets_are_completed():
    assert completions("promptmill ") == list(VERBS)
    assert completions("promptmill submit --sampler d") == [name for name in SAMPLERS if name.startswith("d")]
    assert completions("promptmill submit --sampler euler,un") == ["euler,unipc"]
    assert completions("promptmill render --preset light") == [name for name in PRESETS if name.startswith("light")]


@pytest.mark.parametrize(
    "words", [["status", "dogs"], ["submit", "missing.txt"], ["submit", "cats.txt", "--width", "x"]]
)
def test_with_json_an_error_is_json_too(promptmill: Command, at_redis: str, words: list[str]):
    plain = promptmill(*words)
    ran = promptmill(*words, "--json")
    assert (plain.code, plain.out) == (2, "")
    assert (ran.code, ran.err) == (2, plain.err)
    said = json.loads(ran.out)
    assert said["code"] == 2 and said["error"] in ran.err


def test_an_error_is_json_where_the_environment_asks_for_it(promptmill: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PROMPTMILL_JSON", "1")
    ran = promptmill("submit", "missing.txt", "--output", "out")
    assert (ran.code, json.loads(ran.out)) == (2, {"error": "missing.txt: no such file", "code": 2})


def test_quiet_is_quiet_but_for_data_and_errors(promptmill: Command, at_redis: str):
    words = ["submit", "cats.txt", "--output", "out", "--run", "cats", "--model", "tiny-random"]
    loud = promptmill(*words)
    quiet = promptmill(*words, "-q")
    assert loud.err and (quiet.code, quiet.out, quiet.err) == (0, loud.out, "")
    failed = promptmill("submit", "missing.txt", "--output", "out", "-q")
    assert (failed.code, failed.err) == (2, "promptmill: missing.txt: no such file\n")
    mistyped = promptmill("submit", "cats.txt", "-q")
    assert mistyped.code == 2 and "Missing option '--output'" in mistyped.err


SHOUT = """
import click, promptmill.cli as cli
shout = click.Command("shout", callback=lambda: click.secho("loud", fg="red", err=True))
cli.VERBS["shout"], cli._command = "", lambda verb: shout
cli.read_settings = lambda path: {}
cli.main()
"""


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_no_color_is_heeded_on_a_terminal(no_color: str, coloured: bool):
    ours, its = pty.openpty()
    environ = {**os.environ, "NO_COLOR": no_color, "TERM": "xterm"}
    subprocess.run([sys.executable, "-c", SHOUT, "shout"], env=environ, stderr=its, check=True)
    os.close(its)
    said = os.read(ours, 1000)
    assert b"loud" in said and (b"\x1b[31m" in said) is coloured
