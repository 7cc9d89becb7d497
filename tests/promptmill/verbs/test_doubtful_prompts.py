"""What a submission says of its prompts before anything is rendered, as a user sees it."""

import json
from pathlib import Path

import pytest

from tests.promptmill.conftest import Command

LINES = (
    "a red apple --n blurry --w 64\na <lora:x:1> pear\na {red|blue} plum\n"
    + "long_hair,red_apple,blue_sky," * 20
    + "\n"
)


@pytest.fixture
def doubtful(here: Path) -> Path:
    (here / "doubtful.txt").write_text(LINES)
    return here / "doubtful.txt"


def test_a_dry_run_says_and_counts_them(promptmill: Command, doubtful: Path):
    ran = promptmill("submit", "doubtful.txt", "--output", "out", "--dry-run", "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["truncated"] == 1
    told = [line for line in ran.err.splitlines() if line.startswith("warning: 1 job has ")]
    lines = [("kohya", 1), ("LoRA", 2), ("alternatives", 3), ("75 tokens", 4)]
    for what, line in lines:
        assert any(what in sentence and f"doubtful.txt:{line}: " in sentence for sentence in told), what
    assert len(told) == len(lines)
    assert not (doubtful.parent / "out").exists()


def test_a_submission_says_them_too(promptmill: Command, doubtful: Path, at_redis: str):
    ran = promptmill("submit", "doubtful.txt", "--output", "out", "--dialect", "kohya", "--on-error", "skip")
    assert ran.code == 0, ran.err
    assert "kohya's scripts" not in ran.err
    assert "warning: 1 job has a LoRA in the prompt, first at doubtful.txt:2: " in ran.err
