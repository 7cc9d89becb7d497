"""`promptmill list RUN`: a job is found again by what a person knows of it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from promptmill.producer.layout import image_name
from promptmill.producer.outputs.open import open_output
from promptmill.producer.plan_files import load_plan
from promptmill.producer.queue.queue import JobQueue
from tests.images import image_of
from tests.promptmill.conftest import Command, Ran


@pytest.fixture
def zoo(promptmill: Command, at_redis: str, here: Path) -> Path:
    """Five jobs, of which index 1 has its image."""
    rows = ["prompt,class,seed", "a red cat,cat,5", "a dog,dog,6", "A Cat again,cat,7", "a cow,cow,8", "a fox,fox,9"]
    (here / "zoo.csv").write_text("\n".join(rows))
    ran = promptmill("submit", "zoo.csv", "--output", "out", "--run", "zoo", "--model", "tiny-random")
    assert ran.code == 0, ran.err
    folder = here / "out" / "zoo"
    put(folder, 1)
    return folder


def put(folder: Path, index: int, data: Callable[[bytes], bytes] = lambda image: image) -> None:
    """Put the image of an index into the run's folder, or what `data` makes of it."""
    with load_plan(open_output(str(folder))) as plan:
        job = next(plan.since(index))
        open_output(str(folder)).put_once(image_name(job.id), data(image_of(plan.whole(job))))


def indexes(ran: Ran) -> list[int]:
    assert ran.code == 0, ran.err
    return [json.loads(line)["index"] for line in ran.out.splitlines()]


def test_a_job_is_found_by_its_index(promptmill: Command, zoo: Path):
    ran = promptmill("list", zoo, "--index", 1)
    (name,) = zoo.glob("images/*/*.png")
    assert ran.out == f"1  done  {name}  zoo.csv:3  a dog\n"


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([], [0, 1, 2, 3, 4]),
        (["--index", "0,2-3"], [0, 2, 3]),
        (["--label", "class=cat"], [0, 2]),
        (["--prompt", "cat"], [0, 2]),
        (["--prompt", "cat", "--label", "class=cat", "--index", "1-4"], [2]),
        (["--label", "class=bird"], []),
        (["--index", "99"], []),
    ],
)
def test_jobs_are_found_by_label_prompt_and_range(promptmill: Command, zoo: Path, words: list[str], found: list[int]):
    assert indexes(promptmill("list", zoo, *words, "--json")) == found
    assert indexes(promptmill("list", "zoo", *words, "--json")) == found, "by the run's name in Redis"


def test_done_is_what_is_whole_and_the_jobs_own(promptmill: Command, zoo: Path):
    put(zoo, 2, lambda image: image[:-20])
    put(zoo, 3, lambda image: b"my notes")
    states = [json.loads(line)["state"] for line in promptmill("list", zoo, "--json").out.splitlines()]
    assert states == ["open", "done", "broken", "taken", "open"]


def test_a_failed_job_says_why(promptmill: Command, zoo: Path, client):
    queue = JobQueue(client, "worker")
    (ready,) = queue.claimable()
    for claim in queue.claim(ready.shape, 10):
        if claim.index == 3:
            queue.failed(claim, "the dog ate it")
    ran = promptmill("list", "zoo", "--index", 3)
    assert ran.out.startswith("3  failed  ") and ran.out.endswith("  a cow  (the dog ate it)\n")


def test_wrong_words_are_told(promptmill: Command, zoo: Path):
    assert "need a RUN" in promptmill("list", "--index", 3).err
    assert "'x' is not an index such as 17" in promptmill("list", zoo, "--index", "x").err
    assert "expected NAME=VALUE" in promptmill("list", zoo, "--label", "cat").err
    assert promptmill("list", zoo, "--prompt", "unicorn").err == f"no such job in {zoo}\n"
