"""`promptmill status`: where runs stand, for people and for programs."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import redis

from promptmill.embedded import embedded_server
from promptmill.producer.broker import connect
from promptmill.producer.job import Job
from promptmill.producer.queue.ledger import Ledger
from promptmill.producer.queue.queue import JobQueue
from promptmill.producer.queue.workers import WorkerReport, Workers
from tests.entries import as_entries
from tests.farm import wait_until

JOBS = [Job(prompt=f"image {n}", width=64, height=64) for n in range(30)]
SHAPE = JOBS[0].shape
Enter = Callable[..., JobQueue]


@pytest.fixture
def enter(client: redis.Redis, at_redis: str) -> Enter:
    """Enters a run, and settles its first jobs: so many done, so many failed."""

    def enter(run: str, images: int, done: int = 0, failed: int = 0) -> JobQueue:
        Ledger(client).open(run, output="/out", digest="d", jobs=images, images=images, common={})
        queue = JobQueue(client, "w")
        queue.enqueue(run, 0, images, as_entries(enumerate(JOBS[:images])))
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
    assert json.loads(promptmill("status", "--json").out) == {
        "runs": [],
        "workers": [],
        "malformed": {"count": 0, "last": []},
        "queue": [],
    }


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
    assert said["queue"] == [{"shape": SHAPE.key, "waiting": 2, "held": 1, "why": []}]
    (worker,) = said["workers"]
    assert (worker["name"], worker["state"], worker["devices"]) == ("w", "rendering", 8)


def test_json_of_one_run_has_its_failures_in_order(enter, promptmill):
    enter("a", 25, failed=24)
    enter("b", 1)
    ran = promptmill("status", "a", "--json")
    assert ran.code == 0, "not finished"
    (run,) = json.loads(ran.out)["runs"]
    assert run["run"] == "a"
    unknown = {"prompt": None, "row": None}
    assert run["failures"][7] == {"index": 7, "id": JOBS[7].id, "reason": "reason 7", **unknown}, "it has no plan"
    assert [failure["index"] for failure in run["failures"]] == list(range(24))


def test_a_person_sees_the_most_frequent_reasons_and_how_many_more(client, enter, promptmill):
    queue = enter("a", 30, failed=12)
    for claim in queue.claim(SHAPE, 7):
        queue.failed(claim, "the dog ate it")
    lines = promptmill("status", "a").out.splitlines()
    assert lines[0] == "a: 0 of 30 images, 19 failed  /out/a"
    assert lines[1] == "  7 failed: the dog ate it"
    assert lines[2:6] == ["    index 12", "    index 13", "    index 14", "    ... and 4 more: --json lists them all"]
    assert lines[6:24] == [line for at in range(9) for line in (f"  1 failed: reason {at}", f"    index {at}")]
    assert lines[24] == "  ... and 3 more reasons: --json lists them all"


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
        assert promptmill("status", "a", "--until-finished", "--json").code == code
    assert promptmill("status").code == 0, "it is about all runs"


def test_an_unknown_run_is_a_sentence(enter, promptmill):
    enter("a", 1)
    for words in (["x"], ["x", "--json"], ["x", "--watch"]):
        ran = promptmill("status", *words)
        assert (ran.code, bool(ran.out)) == (2, "--json" in words)
        assert ran.err == "promptmill: no run 'x' in this Redis; `promptmill list` shows those there are\n"


def test_without_redis_it_is_a_sentence(promptmill):
    ran = promptmill("status", "--broker", "redis://:geheim@127.0.0.1:1")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("promptmill: no Redis at redis://:***@127.0.0.1:1: ")


def test_the_workers_are_shown_with_what_they_do(client, at_redis, promptmill):
    Workers(client).report(WorkerReport("a", "rendering", "tpu", 8, shape=SHAPE.key, images=120, images_per_s=3.5))
    Workers(client).report(WorkerReport("b", "compiling", "tpu", 8, shape=SHAPE.key, images_per_s=0.25))
    assert promptmill("status").out.splitlines()[1:] == [
        f"worker a: rendering, 8 tpu, 3.50 images/s, 120 so far, {SHAPE.key}",
        f"worker b: compiling, 8 tpu, 0.25 images/s, {SHAPE.key}",
        "2 workers: 3.75 images/s",
    ]


def test_a_watcher_sees_lines_of_json_until_the_run_is_over(client, enter, at_redis, here):
    queue = enter("a", 2, done=1)
    command = [sys.executable, "-m", "promptmill", "status", "a", "--until-finished", "--json", "--broker", at_redis]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watch:
        assert watch.stdout is not None
        first = json.loads(watch.stdout.readline())
        (claim,) = queue.claim(SHAPE, 1)
        queue.done(claim)
        others = [json.loads(line) for line in watch.stdout]
    assert (first["runs"][0]["done"], others[-1]["runs"][0]["done"], watch.returncode) == (1, 2, 0)
    assert [one["runs"][0]["images_per_s"] for one in (first, others[-1])] == [None, None], "two images tell no rate"


def test_a_watcher_stays_when_the_run_is_over_and_until_it_is_stopped(enter, at_redis, here):
    enter("a", 1, done=1)
    command = [sys.executable, "-m", "promptmill", "status", "a", "--watch", "--json", "--broker", at_redis]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watch:
        assert watch.stdout is not None
        seen = [json.loads(watch.stdout.readline())["runs"][0]["finished"] for _ in range(2)]
        assert watch.poll() is None
        watch.terminate()
    assert seen == [True, True]


def _looks(client: redis.Redis) -> int:
    stats: Any = client.info("commandstats")
    return int(stats.get("cmdstat_exists", {}).get("calls", 0))


def test_a_redis_that_hangs_is_told_and_waited_for(here):
    """A server of the test's own, since it is stopped."""
    with embedded_server() as embedded:
        client = connect(embedded.url)
        Ledger(client).open("a", output="/out", digest="d", jobs=1, images=1, common={})
        queue = JobQueue(client, "w")
        queue.enqueue("a", 0, 1, as_entries(enumerate(JOBS[:1])))
        (claim,) = queue.claim(SHAPE, 1)
        said_of_itself: Any = client.info()
        server = said_of_itself["process_id"]
        command = [sys.executable, "-m", "promptmill", "wait", "a", "--json", "--broker", embedded.url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as waiting:
            assert waiting.stdout is not None and waiting.stderr is not None
            try:
                wait_until(lambda: _looks(client) > 2, "it looks again and again")
                os.kill(server, signal.SIGSTOP)
                said = waiting.stderr.readline()
                os.kill(server, signal.SIGCONT)
                queue.done(claim)
                answer = json.loads(waiting.stdout.read())
            finally:
                os.kill(server, signal.SIGCONT)
                if sys.exc_info()[0]:
                    waiting.kill()
    assert said.startswith("waiting: Redis: ")
    assert (answer["state"], answer["done"], answer["output"], waiting.returncode) == ("finished", 1, "/out/a", 0)


@pytest.mark.parametrize(("done", "failed", "code"), [(2, 0, 0), (1, 1, 1)])
def test_wait_exits_as_status_does(enter, promptmill, done, failed, code):
    enter("a", 2, done, failed)
    ran = promptmill("wait", "a")
    assert (ran.code, ran.out) == (code, "")
    told = "failed: index 1: reason 1\n" if failed else ""
    assert ran.err == f"{told}a: finished, {done} of 2 images{', 1 failed' if failed else ''}\n"


def test_wait_gives_up_after_its_timeout(enter, promptmill):
    enter("a", 2, done=1)
    ran = promptmill("wait", "a", "--timeout", "0.1")
    assert (ran.code, "1 of 2 images left after 0.1 s" in ran.err) == (2, True)


def test_output_is_the_runs_folder_in_every_verb(enter, promptmill):
    enter("a", 1, done=1)
    listed = json.loads(promptmill("list", "--json").out)["runs"][0]["output"]
    shown = json.loads(promptmill("status", "--json").out)["runs"][0]["output"]
    purged = json.loads(promptmill("purge", "a", "--json").out)["output"]
    assert (listed, shown, purged) == ("/out/a", "/out/a", "/out/a")


def test_a_workers_problem_is_shown(client, at_redis, promptmill):
    Workers(client).report(WorkerReport("w", "starting", problems={"m": "no such model"}))
    assert promptmill("status").out.splitlines()[1:] == [
        "worker w: starting, no devices yet, 0.00 images/s",
        "  m: no such model",
    ]
