"""The command line as a user has it: a folder to stand in, no settings, and what a command leaves behind."""

import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from promptmill.cli import main


@dataclasses.dataclass(frozen=True)
class Ran:
    """What a command left behind: its exit code, its data, its words."""

    code: int
    out: str
    err: str


Command = Callable[..., Ran]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: empty, but for a prompt file of two."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("PROMPTMILL_")]:
        monkeypatch.delenv(name)
    (tmp_path / "cats.txt").write_text("a cat\nanother cat\n")
    return tmp_path


@pytest.fixture
def promptmill(here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs `promptmill ...` in the current folder."""

    def run(*words: str | Path) -> Ran:
        monkeypatch.setattr(sys, "argv", ["promptmill", *map(str, words)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capfd.readouterr()
        return Ran(int(left.value.code or 0), out, err)

    return run


@pytest.fixture
def at_redis(client: object, redis_url: str, monkeypatch: pytest.MonkeyPatch, here: Path) -> str:
    """The commands find the real Redis without being told, as after `export PROMPTMILL_BROKER=...`."""
    monkeypatch.setenv("PROMPTMILL_BROKER", redis_url)
    return redis_url
