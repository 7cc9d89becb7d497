"""`promptmill status` says of each shape's jobs why they wait."""

import json
import re
from collections.abc import Callable

import pytest
import redis

from promptmill.producer.job import Job
from promptmill.producer.queue.control import pause
from promptmill.producer.queue.ledger import Ledger
from promptmill.producer.queue.queue import JobQueue
from promptmill.producer.queue.workers import WorkerReport, Workers
from tests.entries import as_entries
from tests.promptmill.conftest import Command

JOBS = [Job(prompt=f"image {n}", width=64, height=64, model="org/m") for n in range(3)]
SHAPE = JOBS[0].shape
Enter = Callable[..., JobQueue]


@pytest.fixture
def enter(client: redis.Redis, at_redis: str) -> Enter:
    def enter(run: str, priority: str = "normal", output: str = "/out") -> JobQueue:
        Ledger(client).open(run, output=output, digest=run, jobs=3, images=3, common={}, priority=priority)
        queue = JobQueue(client, "w")
        queue.enqueue(run, 0, 3, as_entries(enumerate(JOBS)))
        return queue

    return enter


@pytest.fixture
def why(promptmill: Command) -> Callable[[], list[tuple[str, str]]]:
    """What `status --json` gives as reasons; the same stand in its text."""

    def why() -> list[tuple[str, str]]:
        (queue,) = json.loads(promptmill("status", "--json").out)["queue"]
        text = promptmill("status").out
        for reason in queue["why"]:  # the second command may be a second later
            assert timeless(f"\n  {reason['text'].split(' (')[0]}") in timeless(text)
        return [(reason["kind"], reason["text"]) for reason in queue["why"]]

    return why


def timeless(text: str) -> str:
    return re.sub(r"\d+", "N", text)


def report(client: redis.Redis, name: str = "w", state: str = "rendering", **more: object) -> None:
    Workers(client).report(WorkerReport(name, state, "cpu", 1, **more))  # type: ignore[arg-type]


def test_without_a_worker_that_is_why(enter: Enter, why):
    enter("a")
    assert why() == [("no worker", "no worker is there")]


def test_what_is_next_in_turn_waits_for_nothing(client, enter: Enter, why):
    enter("a")
    report(client)
    assert why() == []


def test_a_paused_run_waits_for_its_owner_and_the_others_do_not(client, enter: Enter, why):
    enter("a")
    enter("b")
    pause(client, "b")
    report(client)
    assert why() == [("paused", "paused: b")]
    pause(client, "a")
    assert why() == [("paused", "paused: a, b")]


def test_a_model_that_no_worker_can_load_is_told_with_the_reason(client, enter: Enter, why):
    enter("a")
    report(client, problems={"org/m": "no such model"})
    report(client, "v")
    assert why() == [], "one worker can, or has not tried"
    report(client, "v", problems={"org/m": "no such model"})
    assert why() == [("model", "no worker can render with it: no such model")]


def test_a_shape_in_smaller_batches_is_rendered(client, enter: Enter, why):
    enter("a")
    report(client, problems={SHAPE.key: "out of memory: it goes on with 2 images per device"})
    assert why() == []


def test_an_output_that_is_away_is_told_with_its_runs(client, enter: Enter, why):
    enter("a")
    enter("b", output="/elsewhere")
    report(client, problems={"/elsewhere": "No space left on device"})
    assert why() == [("output", "the output of b is away: No space left on device")]


def test_who_compiles_and_since_when(client, enter: Enter, why):
    enter("a")
    report(client, compiling=SHAPE.key, compiling_s=125.0)
    ((kind, text),) = why()
    assert (kind, text[:20], text[-7:]) == ("compiling", "compiling by w since", " (2:05)")


def test_a_higher_priority_comes_first(client, enter: Enter, why):
    enter("a")
    queue = enter("b", priority="urgent")
    report(client)
    assert why() == [("priority", "a behind a higher priority: b")]
    for claim in queue.claim(SHAPE, 3):
        queue.done(claim)
    assert why() == []
