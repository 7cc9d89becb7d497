"""A failed job is told with its index, the file and line of its row, and its prompt, wherever failures are shown."""

import json
from pathlib import Path

import pytest
import redis

from promptmill.producer.queue.queue import JobQueue
from promptmill.verbs.failures import failed_jobs, shortened, tell_failures
from tests.promptmill.conftest import Command

LONG = "a " + "very " * 30 + "long prompt"


@pytest.fixture
def zoo(promptmill: Command, client: redis.Redis, at_redis: str, here: Path) -> Path:
    """A finished run of two files, of which all jobs but the first have failed. Returns its folder."""
    (here / "sub").mkdir()
    (here / "sub" / "zoo.csv").write_text('prompt,class\na red cat,cat\n\n"a dog\nin two lines",dog\na cow,cow\n')
    (here / "more.txt").write_text(f"# what else\n{LONG}\n")
    submit = ("submit", "sub/zoo.csv", "more.txt", "--output", "out", "--run", "zoo", "--model", "tiny-random")
    assert promptmill(*submit, "-n", 2).code == 0
    queue = JobQueue(client, "worker")
    (ready,) = queue.claimable()
    for claim in queue.claim(ready.shape, 10):
        if claim.index < 2:
            queue.done(claim)
        else:
            queue.failed(claim, "the dog ate it" if claim.index < 7 else "out of luck")
    return here / "out" / "zoo"


ROWS = [
    "index 2, zoo.csv:4: a dog in two lines",
    "index 3, zoo.csv:4: a dog in two lines",
    "index 4, zoo.csv:6: a cow",
    "index 5, zoo.csv:6: a cow",
    "index 6, more.txt:2: a very very very very very very very very very very very...",
    "index 7, more.txt:2: a very very very very very very very very very very very...",
]


def test_status_says_which_rows_failed(promptmill: Command, zoo: Path):
    lines = promptmill("status", "zoo").out.splitlines()
    assert lines[1] == "  5 failed: the dog ate it"
    assert lines[2:5] == [f"    {row}" for row in ROWS[:3]]
    assert lines[6:8] == ["  1 failed: out of luck", f"    {ROWS[5]}"]
    failures = json.loads(promptmill("status", "zoo", "--json").out)["runs"][0]["failures"]
    assert [failure["row"] for failure in failures] == 2 * ["zoo.csv:4"] + 2 * ["zoo.csv:6"] + 2 * ["more.txt:2"]
    assert failures[0]["prompt"] == "a dog\nin two lines"


def test_wait_says_which_rows_failed(promptmill: Command, zoo: Path):
    told = promptmill("wait", "zoo").err.splitlines()
    reasons = 5 * ["the dog ate it"]
    assert told[:5] == [f"failed: {row}: {reason}" for row, reason in zip(ROWS, reasons, strict=False)]
    assert told[5] == "... and 1 more: promptmill status zoo --json lists them all"


def test_list_says_of_which_row_a_job_is(promptmill: Command, zoo: Path):
    ran = promptmill("list", "zoo", "--index", 4)
    assert ran.out.split("  ")[3:] == ["zoo.csv:6", "a cow", "(the dog ate it)\n"]
    assert json.loads(promptmill("list", "zoo", "--index", 4, "--json").out)["row"] == "zoo.csv:6"


def test_failures_are_told_without_a_plan_that_cannot_be_read(promptmill: Command, zoo: Path):
    for page in zoo.glob("plan/*"):
        page.unlink()
    ran = promptmill("status", "zoo")
    assert (ran.code, ran.out.splitlines()[2]) == (1, "    index 2")


def test_jobs_that_are_added_keep_their_own_files_rows(promptmill: Command, zoo: Path, here: Path):
    (here / "late.txt").write_text("a late one\n")
    late = ("submit", "late.txt", "--output", "out", "--run", "zoo", "--append", "--model", "tiny-random")
    assert promptmill(*late).code == 0
    rows = [json.loads(line)["row"] for line in promptmill("list", "zoo", "--json").out.splitlines()]
    assert rows[:2] + rows[-2:] == ["zoo.csv:2", "zoo.csv:2", "more.txt:2", "late.txt:1"]


def test_a_short_prompt_is_told_whole_and_one_failure_is_the_only_one(capfd):
    assert shortened("x" * 60) == "x" * 60
    assert shortened("x" * 61) == "x" * 57 + "..."
    tell_failures(failed_jobs([], {}), 0, "there are more")
    assert capfd.readouterr().err == ""
