"""`promptmill status`: where runs stand, for people and for programs."""

import json
from collections.abc import Callable

import pytest
import redis

from producer.job import Job
from producer.ledger import Ledger
from producer.queue import JobQueue
from producer.workers import WorkerReport, Workers

JOBS = [Job(prompt=f"picture {n}", width=64, height=64) for n in range(30)]
SHAPE = JOBS[0].shape
Enter = Callable[..., JobQueue]


@pytest.fixture
def enter(client: redis.Redis, at_redis: str) -> Enter:
    """Enters a run, and settles its first jobs: so many done, so many failed."""

    def enter(run: str, images: int, done: int = 0, failed: int = 0) -> JobQueue:
        Ledger(client).open(run, output=f"/out/{run}", digest="d", jobs=images, images=images, common={})
        queue = JobQueue(client, "w")
        queue.enqueue(run, 0, images, list(enumerate(JOBS[:images])))
        for number, claim in enumerate(queue.claim(SHAPE, done + failed) if done + failed else []):
            if number < done:
                queue.done(claim)
            else:
                queue.failed(claim, f"reason {claim.index}")
        return queue

    return enter


def test_with_nothing_there_it_says_what_to_do(at_redis, promptmill):
    ran = promptmill("status")
    assert ran.code == 0
    assert ran.out == "no runs\nno workers; start one with `promptmill worker`\n"
    assert json.loads(promptmill("status", "--json").out) == {"runs": [], "workers": [], "queue": []}


def test_json_has_runs_workers_and_what_waits(client, enter, promptmill):
    enter("a", 3, done=1)
    queue = enter("b", 1)
    queue.claim(SHAPE, 1)
    Workers(client).report(WorkerReport("w", "rendering", platform="cpu", devices=8))
    said = json.loads(promptmill("status", "--json").out)
    assert [run["run"] for run in said["runs"]] == ["b", "a"]
    assert said["runs"][1].keys() >= {"created", "first_done", "last_done", "images_per_s", "eta_s"}
    figures = ("output", "jobs", "images", "enqueued", "present", "done", "failed", "left", "finished")
    assert [said["runs"][1][name] for name in figures] == ["/out/a", 3, 3, 3, 0, 1, 0, 2, False]
    assert "failures" not in said["runs"][1]
    assert said["queue"] == [{"shape": SHAPE.key, "waiting": 2, "held": 1}]
    (worker,) = said["workers"]
    assert (worker["name"], worker["state"], worker["devices"]) == ("w", "rendering", 8)


def test_json_of_one_run_has_its_failures_in_order(enter, promptmill):
    enter("a", 25, failed=24)
    enter("b", 1)
    ran = promptmill("status", "a", "--json")
    assert ran.code == 0, "not finished"
    (run,) = json.loads(ran.out)["runs"]
    assert run["run"] == "a"
    assert run["failures"][7] == {"index": 7, "id": JOBS[7].id, "reason": "reason 7"}
    assert [failure["index"] for failure in run["failures"]] == list(range(24))


def test_a_person_sees_the_first_failures_and_how_many_more(enter, promptmill):
    enter("a", 23, failed=22)
    lines = promptmill("status", "a").out.splitlines()
    assert lines[0] == "a: 0 of 23 images, 22 failed  /out/a"
    assert lines[1] == "  failed: place 0: reason 0"
    assert "  failed: place 19: reason 19" in lines
    assert "  ... and 2 more: --json lists them all" in lines
    assert not any("place 20" in line for line in lines)


@pytest.mark.parametrize(
    ("images", "done", "failed", "code"),
    [(2, 2, 0, 0), (2, 1, 1, 1), (2, 0, 2, 1), (2, 0, 1, 0), (2, 0, 0, 0)],
    ids=["all done", "one failed", "all failed", "one failed, not finished", "nothing yet"],
)
def test_the_exit_code_is_1_for_a_finished_run_with_failures(enter, promptmill, images, done, failed, code):
    enter("a", images, done, failed)
    assert promptmill("status", "a").code == code
    assert promptmill("status", "a", "--json").code == code
    if done + failed == images:
        assert promptmill("status", "a", "--watch", "--json").code == code
    assert promptmill("status").code == 0, "it is about all runs"


def test_an_unknown_run_is_a_sentence(enter, promptmill):
    enter("a", 1)
    for words in (["x"], ["x", "--json"], ["x", "--watch"]):
        ran = promptmill("status", *words)
        assert (ran.code, ran.out) == (2, "")
        assert ran.err == "promptmill: no run 'x' in this Redis; `promptmill status` lists those there are\n"


def test_without_redis_it_is_a_sentence(promptmill):
    ran = promptmill("status", "--broker", "redis://:geheim@127.0.0.1:1")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("promptmill: no Redis at redis://:***@127.0.0.1:1: ")


def test_a_workers_problem_is_shown(client, at_redis, promptmill):
    Workers(client).report(WorkerReport("w", "starting", problems={"m": "no such model"}))
    assert promptmill("status").out.splitlines()[1:] == [
        "worker w: starting, no devices yet, 0.00 images/s",
        "  cannot render with m: no such model",
    ]
