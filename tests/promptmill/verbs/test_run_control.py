"""The verbs about runs: what they do to a real Redis, what they say, how they end."""

import json
from pathlib import Path
from typing import Any

import pytest
import redis

from promptmill.cli import VERBS
from promptmill.producer.layout import image_name
from promptmill.producer.queue.ledger import Ledger
from promptmill.producer.queue.queue import Claim, JobQueue
from promptmill.verbs.list import age
from promptmill.verbs.rates import duration
from promptmill.verbs.status import _bar, _bring_up_to_date, _run
from tests.images import image_of

ABOUT_A_RUN = ["cancel", "pause", "unpause", "retry", "purge"]


@pytest.fixture
def run(at_redis: str, here: Path, promptmill) -> str:
    """A run of two cats, submitted to `out`."""
    assert promptmill("submit", "cats.txt", "--output", "out", "--run", "cats").code == 0
    return "cats"


def claim(client: redis.Redis, count: int = 100) -> list[Claim]:
    """What a worker would get now."""
    queue = JobQueue(client, "test")
    return [claim for ready in queue.claimable() for claim in queue.claim(ready.shape, count)]


def fail_all(client: redis.Redis) -> list[Claim]:
    claims = claim(client)
    for one in claims:
        JobQueue(client, "test").failed(one, "the dog ate it")
    return claims


def finish_all(client: redis.Redis, here: Path) -> list[Claim]:
    """Renders all that waits, as a worker does: the object, then the bit."""
    claims = claim(client)
    for one in claims:
        image = here / "out" / one.run / image_name(one.job.id)
        image.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(image_of(one.job))
        JobQueue(client, "test").done(one)
    return claims


def said(ran) -> dict[str, Any]:
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


# --- all of them


@pytest.mark.parametrize("verb", [*ABOUT_A_RUN, "priority"])
def test_an_unknown_run_is_a_sentence_with_the_names_that_are_near(run, promptmill, verb):
    level = ["low"] if verb == "priority" else []
    ran = promptmill(verb, "cat", *level)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "promptmill: no run 'cat' in this Redis; did you mean 'cats'?\n"
    assert promptmill(verb, "quite-another", *level).err.endswith("; `promptmill list` shows those there are\n")


@pytest.mark.parametrize("verb", [*ABOUT_A_RUN, "priority", "resume", "list", "status"])
def test_without_redis_it_is_a_sentence(here, promptmill, verb):
    words = {"priority": ["r", "low"], "resume": ["r", "--output", "out"], "list": [], "status": []}.get(verb, ["r"])
    ran = promptmill(verb, *words, "--broker", "redis://:geheim@127.0.0.1:1")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("promptmill: no Redis at redis://:***@127.0.0.1:1: ")


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "import-model"])
def test_every_verb_has_help(promptmill, verb):
    ran = promptmill(verb, "--help")
    assert ran.code == 0
    assert f"promptmill {verb} [OPTIONS]" in ran.out


# --- list


def test_list_has_every_run_the_newest_first(client, run, promptmill):
    promptmill("submit", "cats.txt", "--output", "elsewhere", "--run", "more", "--priority", "low")
    fail_all(client)
    ran = promptmill("list")
    assert ran.code == 0
    head, more, cats = (line.split() for line in ran.out.splitlines())
    assert head == ["run", "state", "priority", "images", "done", "failed", "cancelled", "left", "age"]
    assert more[:8] == ["more", "finished", "low", "2", "0", "2", "0", "0"]
    assert cats[:8] == ["cats", "finished", "normal", "2", "0", "2", "0", "0"]
    assert cats[9] == "s"
    listed = said(promptmill("list", "--json"))["runs"]
    assert [one["run"] for one in listed] == ["more", "cats"]
    assert listed[1].keys() >= {"state", "priority", "output", "images", "done", "failed", "left", "created", "age_s"}


def test_list_of_nothing(at_redis, promptmill):
    assert promptmill("list").out == "no runs\n"
    assert said(promptmill("list", "--json")) == {"runs": []}


AGES = [(0.0, "0 s"), (59.9, "59 s"), (60.0, "1 min"), (7300.0, "2 h"), (9e5, "10 d")]


@pytest.mark.parametrize(("seconds", "text"), AGES)
def test_ages(seconds: float, text: str):
    assert age(seconds) == text


# --- cancel


def test_what_is_cancelled_is_claimed_by_nobody(client, run, promptmill):
    assert said(promptmill("cancel", "cats", "--json")) == {"run": "cats", "cancelled": 2, "state": "cancelled"}
    assert claim(client) == []
    assert promptmill("status", "cats").out.startswith("cats (cancelled): 0 of 2 images")
    assert promptmill("status", "cats", "--until-finished").code == 0, "a cancelled run is over: nobody waits for it"


def test_a_finished_run_has_nothing_to_cancel(client, run, here, promptmill):
    finish_all(client, here)
    ran = promptmill("cancel", "cats")
    assert (ran.code, ran.err) == (0, "cats is finished: there is nothing to cancel\n")
    assert Ledger(client).status("cats").state == "finished"


def test_a_cancelled_run_can_be_taken_up_again(client, run, here, promptmill):
    promptmill("cancel", "cats")
    result = said(promptmill("resume", "cats", "--output", "out", "--json"))
    assert (result["present"], result["enqueued"]) == (0, 2)
    assert len(finish_all(client, here)) == 2
    assert Ledger(client).status("cats").state == "finished"


def test_a_run_is_known_by_its_folder_as_well(client, run, here, promptmill):
    assert promptmill("pause", "out/cats/").err == "cats: paused, 2 of 2 images to go\n"
    assert promptmill("status", "./out/cats").out.startswith("cats (paused): 0 of 2 images")
    elsewhere = promptmill("cancel", "other/cats")
    assert (elsewhere.code, "in this Redis is at " in elsewhere.err) == (2, True)
    assert Ledger(client).status("cats").state == "paused"
    promptmill("cancel", "out/cats")
    assert promptmill("purge", "out/cats").code == 0
    assert said(promptmill("resume", "out/cats", "--json"))["enqueued"] == 2
    assert "leave out --output" in promptmill("resume", "out/cats", "--output", "elsewhere").err
    assert "name the run's folder or URL, such as out/cats, or give --output" in promptmill("resume", "cats").err


# --- pause, unpause, priority


def test_a_paused_run_waits_until_it_is_resumed(client, run, promptmill):
    ran = promptmill("pause", "cats")
    assert (ran.code, ran.out, ran.err) == (0, "", "cats: paused, 2 of 2 images to go\n")
    assert claim(client) == []
    assert promptmill("status", "cats").out.startswith("cats (paused): 0 of 2 images")
    assert said(promptmill("unpause", "cats", "--json")) == {"run": "cats", "state": "running"}
    assert len(claim(client)) == 2


def test_a_cancelled_run_is_not_paused_and_wants_resume(run, promptmill):
    promptmill("cancel", "cats")
    assert promptmill("pause", "cats").err == "cats: cancelled, 0 of 2 images to go\n"
    ran = promptmill("unpause", "cats")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.endswith("was cancelled; `promptmill resume cats --output URL` takes it up again\n")


def test_a_priority_is_kept_and_shown(client, run, promptmill):
    ran = promptmill("priority", "cats", "urgent")
    assert (ran.code, ran.err) == (0, "cats: urgent\n")
    assert Ledger(client).status("cats").priority == "urgent"
    assert promptmill("status", "cats").out.startswith("cats (urgent): 0 of 2 images")


def test_an_urgent_run_overtakes(client, run, here, promptmill):
    (here / "dogs.txt").write_text("a dog\n")
    promptmill("submit", "dogs.txt", "--output", "out", "--run", "dogs")
    promptmill("priority", "dogs", "urgent")
    (ready, *_) = JobQueue(client, "w").claimable()
    assert [one.run for one in JobQueue(client, "w").claim(ready.shape, 2)] == ["dogs", "cats"]


def test_a_wrong_priority_is_told(run, promptmill):
    ran = promptmill("priority", "cats", "high")
    assert ran.code == 2
    assert "'high' is not one of 'urgent', 'normal', 'low'" in ran.err


# --- retry, resume, purge


def test_retry_enters_what_failed_and_nothing_else(client, run, here, promptmill):
    one, other = claim(client)
    JobQueue(client, "test").done(one)
    JobQueue(client, "test").failed(other, "the dog ate it")
    assert said(promptmill("retry", "cats", "--json")) == {"run": "cats", "retried": 1}
    (again,) = finish_all(client, here)
    assert (again.job, again.deliveries) == (other.job, 1)
    status = Ledger(client).status("cats")
    assert (status.done, status.failed, status.state) == (2, 0, "finished")
    assert promptmill("retry", "cats").err == "cats: no failed jobs\n"


@pytest.mark.parametrize(
    ("words", "retried"),
    [(["--reason", "DOG"], 1), (["--index", "1"], 1), (["--index", "0-1"], 2), (["--reason", "x"], 0), ([], 2)],
)
def test_failed_jobs_are_retried_by_reason_and_by_index(client, run, promptmill, words: list[str], retried: int):
    for one, reason in zip(claim(client), ("the dog ate it", "the cat ate it"), strict=True):
        JobQueue(client, "test").failed(one, reason)
    assert said(promptmill("retry", "cats", *words, "--json")) == {"run": "cats", "retried": retried}
    assert len(claim(client)) == retried
    assert Ledger(client).status("cats").failed == 2 - retried


def test_resume_after_a_wiped_redis_enters_what_has_no_image(client, run, here, promptmill):
    first, _ = claim(client)
    image = here / "out" / "cats" / image_name(first.job.id)
    image.parent.mkdir(parents=True)
    image.write_bytes(image_of(first.job))
    client.flushall()
    (here / "cats.txt").unlink()
    ran = promptmill("resume", "cats", "--output", "out")
    assert (ran.code, ran.err) == (0, "cats: 1 of 2 images there, 1 entered into the queue\n")
    assert [one.job.prompt for one in claim(client)] == ["another cat"]


def test_resume_of_a_run_that_the_output_does_not_have_is_a_sentence(at_redis, here, promptmill):
    ran = promptmill("resume", "nothing", "--output", "out")
    assert (ran.code, ran.out) == (2, "")
    assert "nothing" in ran.err and "Traceback" not in ran.err


def test_purge_wants_force_for_a_run_that_is_not_finished(client, run, promptmill):
    ran = promptmill("purge", "cats")
    assert (ran.code, ran.out) == (2, "")
    assert "--force" in ran.err
    assert Ledger(client).status("cats").images == 2
    assert said(promptmill("purge", "cats", "--force", "--json"))["purged"] is True
    assert [key for key in client.keys("*") if "cats" in key] == []


def test_purge_of_a_finished_run_leaves_its_images(client, run, here, promptmill):
    finish_all(client, here)
    ran = promptmill("purge", "cats")
    assert ran.code == 0, ran.err
    assert ran.err.startswith("cats: purged; its images stay in ")
    assert len(list((here / "out" / "cats" / "images").glob("*/*.png"))) == 2
    assert promptmill("list").out == "no runs\n"


# --- status


def test_status_groups_failures_by_reason(client, run, promptmill):
    fail_all(client)
    ran = promptmill("status", "cats")
    assert ran.code == 1
    assert "  2 failed: the dog ate it\n    index 0, cats.txt:1: a cat\n" in ran.out
    (told,) = json.loads(promptmill("status", "cats", "--json").out)["runs"]
    assert told["failures_by_reason"] == {"the dog ate it": 2}


def test_the_live_view_has_a_bar_and_the_rate_of_now():
    figures = {"images": 40, "done": 10, "failed": 2, "left": 28, "images_per_s": 9.0, "eta_s": 3.0, "output": "/out"}
    run = {"run": "r", "state": "running", "priority": "low", **figures}
    assert _bar(run) == f"  [{'#' * 15}{'.' * 35}]  30%"
    _bring_up_to_date(run, 0.5)
    assert _run(run) == "r (low): 10 of 40 images, 2 failed, 0.50 images/s, 0:56 left  /out"
    assert duration(3723) == "1:02:03"
