"""Submission: every job into the queue once, whatever is killed, wiped, repeated or done at the same time."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from promptmill.producer.errors import LedgerError, PlanError
from promptmill.producer.job import Job
from promptmill.producer.layout import image_name
from promptmill.producer.outputs.folder import Folder
from promptmill.producer.outputs.output import Listed
from promptmill.producer.plan_files import read_run
from promptmill.producer.presence import images_present
from promptmill.producer.queue.control import cancel
from promptmill.producer.queue.keys import done_key, queue_key, run_key
from promptmill.producer.queue.ledger import REVOKED, Ledger
from promptmill.producer.queue.queue import CHUNK, JobQueue
from promptmill.producer.submit import Submission, resume, retry, submit
from tests.entries import indexes_in
from tests.images import image_of
from tests.plans import plan_of_jobs

SHAPE = Job(prompt="x", width=64, height=64).shape

MANY = 30_000  # jobs: it takes a second to enqueue them, time enough to be killed in

SUBMITTER = """
import sys
from promptmill.producer.broker import connect
from promptmill.producer.job import Job
from promptmill.producer.outputs.folder import Folder
from promptmill.producer.outputs.output import Listed
from promptmill.producer.plan import plan_jobs
from promptmill.producer.submit import submit
from pathlib import Path

url, folder, count = sys.argv[1:]
plan = plan_jobs(Job(prompt=f"image {n}", seed=n, width=64, height=64) for n in range(int(count)))
submit(plan, output=Folder(Path(folder)), run="r", client=connect(url))
"""


def some_jobs(count: int) -> list[Job]:
    return [Job(prompt=f"image {n}", seed=n, width=64, height=64) for n in range(count)]


def waiting(client: redis.Redis, job: Job | None = None) -> list[int]:
    """The indexes in the run of the jobs in a stream, in its order."""
    return indexes_in(client, queue_key("r", job.shape if job else SHAPE))


@pytest.fixture
def output(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "out")


@pytest.fixture
def enter(client: redis.Redis, output: Folder) -> Callable[..., Submission]:
    return lambda jobs, **given: submit(plan_of_jobs(jobs), output=output, run="r", client=client, **given)


@pytest.fixture
def render(output: Folder) -> Callable[[Job], object]:
    """Puts what stands for the job's image in its place."""
    return lambda job: output.child("r").put_once(image_name(job.id), image_of(job))


@pytest.fixture
def start_submitter(redis_url: str, output: Folder) -> Callable[[int], subprocess.Popen[bytes]]:
    return lambda count: subprocess.Popen([sys.executable, "-c", SUBMITTER, redis_url, str(output.root), str(count)])


def test_every_job_is_enqueued_once_in_order(client, output, enter):
    jobs = some_jobs(2 * CHUNK + 1)
    told: list[int] = []
    done = enter(jobs, sources=["cats.txt"], progress=told.append)
    assert done == Submission("r", f"{output.url}/r", len(jobs), len(jobs), 0, len(jobs))
    assert waiting(client) == list(range(len(jobs)))
    assert (told[0], told[-1]) == (0, len(jobs))
    run = read_run(output.child("r"))
    assert run is not None
    assert run["sources"] == ["cats.txt"]


def test_what_comes_out_of_the_queue_is_what_was_submitted(client, output, enter):
    jobs = [*some_jobs(2), Job(prompt="wide", negative_prompt="", width=128, height=64, target_size=(8, 16))]
    enter(jobs)
    queue = JobQueue(client, "w")
    claims = [claim for ready in queue.claimable() for claim in queue.claim(ready.shape, 8)]
    assert sorted((claim.index, claim.job.id) for claim in claims) == [(n, job.id) for n, job in enumerate(jobs)]
    assert {(claim.run, claim.output) for claim in claims} == {("r", output.url)}


def test_a_second_submission_enqueues_nothing(client, enter):
    enter(some_jobs(3))
    assert enter(some_jobs(3)).enqueued == 0
    assert waiting(client) == [0, 1, 2]


def test_a_submission_of_what_was_rendered_meanwhile_enqueues_nothing(client, enter, render):
    enter(some_jobs(2))
    queue = JobQueue(client, "w")
    for claim in queue.claim(SHAPE, 2):
        render(claim.job)
        queue.done(claim)
    assert enter(some_jobs(2)).enqueued == 0
    assert waiting(client) == []
    assert Ledger(client).status("r").finished


def test_an_image_that_was_deleted_is_enqueued_by_the_next_submission(client, enter, render):
    """The bucket is the truth, Redis is a cache."""
    enter(some_jobs(2))
    queue = JobQueue(client, "w")
    first, second = queue.claim(SHAPE, 2)
    render(first.job)
    for claim in (first, second):
        queue.done(claim)
    assert enter(some_jobs(2)).enqueued == 1
    assert waiting(client) == [second.index]
    assert Ledger(client).status("r").left == 1


def test_what_failed_and_what_was_revoked_is_entered_by_the_next_submission(client, enter, render):
    jobs = some_jobs(5)
    enter(jobs)
    queue = JobQueue(client, "w")
    reasons = ["the disk was full", REVOKED, "the disk was full", None]
    for claim, reason in zip(queue.claim(SHAPE, 4), reasons, strict=True):
        if reason:
            queue.failed(claim, reason)
        else:
            render(claim.job)
            queue.done(claim)
    again = enter(jobs)
    assert (again.enqueued, again.failed, again.revoked, again.present) == (3, 2, 1, 1)
    assert sorted(waiting(client)) == [0, 1, 2, 4]
    status = Ledger(client).status("r")
    assert (status.failed, status.done, status.pending) == (0, 1, 4)
    assert {claim.index: claim.again for claim in queue.claim(SHAPE, 9)} == {0: True, 1: True, 2: True, 4: False}
    assert enter(jobs).enqueued == 0


def test_the_images_that_were_there_are_counted_in_the_output(enter, client, render):
    jobs = some_jobs(3)
    enter(jobs)
    (claim,) = JobQueue(client, "w").claim(SHAPE, 1)
    render(claim.job)
    JobQueue(client, "w").done(claim)
    assert enter(jobs).present == 1


def test_an_image_that_lands_while_the_output_is_listed_is_not_taken_for_a_deleted_one(client, output, enter, render):
    jobs = some_jobs(2)
    enter(jobs)
    queue = JobQueue(client, "w")
    (claim,) = queue.claim(SHAPE, 1)

    class Landing(Folder):
        """A folder in which an image lands just after it was listed."""

        def child(self, name: str) -> "Landing":
            return Landing(self.root / name)

        def scan(self, prefix: str = "") -> Iterator[Listed]:
            there = list(super().scan(prefix))
            render(claim.job)
            queue.done(claim)
            return iter(there)

    with plan_of_jobs(jobs) as plan:
        assert submit(plan, output=Landing(output.root), run="r", client=client).enqueued == 0
    assert waiting(client) == [1]


def test_rows_that_mean_the_same_are_enqueued_once(client, enter):
    one, other = some_jobs(2)
    done = enter([one, other, one, one])
    assert (done.jobs, done.images, done.enqueued) == (4, 2, 2)
    assert waiting(client) == [0, 1]


def test_images_that_are_in_the_output_are_counted_and_not_enqueued(client, enter, render):
    jobs = some_jobs(4)
    render(jobs[1])
    render(jobs[3])
    done = enter([*jobs, jobs[1]])
    assert (done.present, done.enqueued) == (2, 2)
    assert waiting(client) == [0, 2]
    status = Ledger(client).status("r")
    assert (status.done, status.present, status.left) == (2, 2, 2)
    assert [client.getbit(done_key("r"), index) for index in range(5)] == [0, 1, 0, 1, 0]


def test_only_images_count_as_present(output, enter, render):
    (job,) = some_jobs(1)
    render(job)
    output.child("r").put_once("notes.txt", b"mine")
    assert images_present(output.child("r")) == {job.id}
    assert images_present(output.child("elsewhere")) == set()


def test_an_image_of_another_run_is_not_this_runs(output, enter, client):
    (job,) = some_jobs(1)
    output.child("other").put_once(image_name(job.id), image_of(job))
    assert enter([job]).enqueued == 1


def test_after_a_wiped_redis_just_what_is_missing_is_enqueued(client, enter, render):
    jobs = some_jobs(CHUNK + 10)
    enter(jobs)
    rendered = {0, 7, CHUNK, CHUNK + 9}
    for index in rendered:
        render(jobs[index])
    client.flushall()
    done = enter(jobs)
    assert (done.present, done.enqueued) == (len(rendered), len(jobs) - len(rendered))
    assert waiting(client) == [index for index in range(len(jobs)) if index not in rendered]


def test_a_submission_that_was_cut_off_goes_on_where_it_was(client, enter):
    jobs = some_jobs(20 * CHUNK)

    def cut(entered: int) -> None:
        if entered > 5 * CHUNK:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        enter(jobs, progress=cut)
    before = len(waiting(client))
    assert before < len(jobs)
    assert enter(jobs).enqueued == len(jobs) - before
    assert waiting(client) == list(range(len(jobs)))


def test_other_jobs_under_the_same_name_are_refused(client, enter):
    enter(some_jobs(2))
    with pytest.raises(PlanError, match="--run"):
        enter(some_jobs(3)[1:])
    assert waiting(client) == [0, 1]


def test_the_same_run_at_another_output_is_refused(client, tmp_path, enter):
    enter(some_jobs(2))
    with pytest.raises(LedgerError, match="--run"):
        submit(plan_of_jobs(some_jobs(2)), output=Folder(tmp_path / "elsewhere"), run="r", client=client)
    assert waiting(client) == [0, 1]


def test_a_failed_job_is_entered_anew_by_retry(client, output, enter):
    jobs = some_jobs(4)
    enter(jobs)
    queue = JobQueue(client, "w")
    for claim in queue.claim(SHAPE, 3):
        queue.failed(claim, "it was noise")
    assert waiting(client) == [3]
    assert retry(output, "r", client) == 3
    assert sorted(waiting(client)) == [0, 1, 2, 3]
    assert (Ledger(client).status("r").failed, retry(output, "r", client)) == (0, 0)
    assert sorted(claim.job.prompt for claim in queue.claim(SHAPE, 4)) == [job.prompt for job in jobs]


def test_a_run_is_resumed_from_its_output_alone(client, output, enter, render):
    jobs = [*some_jobs(CHUNK + 5), *some_jobs(3)]
    enter(jobs)
    render(jobs[7])
    client.flushall()
    done = resume(output, "r", client)
    assert done == Submission("r", f"{output.url}/r", len(jobs), CHUNK + 5, 1, CHUNK + 4)
    assert waiting(client) == [index for index in range(CHUNK + 5) if index != 7]
    assert resume(output, "r", client).enqueued == 0


def test_a_cancelled_run_is_entered_again_by_resume(client, output, enter, render):
    jobs = some_jobs(5)
    enter(jobs)
    render(jobs[1])
    assert cancel(client, "r") == 5
    assert resume(output, "r", client).enqueued == 4
    assert waiting(client) == [0, 2, 3, 4]
    assert Ledger(client).status("r").state == "running"


def test_what_was_not_submitted_cannot_be_resumed(client, output):
    with pytest.raises(PlanError, match=r"has no run\.json"):
        resume(output, "never", client)


def test_a_bounded_submission_keeps_to_its_bound_and_ends(client, output):
    """A worker takes jobs meanwhile; at no time are there more in the queue than were allowed."""
    most: list[int] = []

    def work() -> None:
        queue = JobQueue(client, "w")
        while Ledger(client).status("r").left:
            most.append(Ledger(client).status("r").pending)
            for claim in queue.claim(SHAPE, 8):
                queue.done(claim)

    plan = plan_of_jobs(some_jobs(100))
    told: list[int] = []
    with ThreadPoolExecutor() as pool:
        entering = pool.submit(
            submit, plan, output=output, run="r", client=client, max_pending=20, progress=told.append
        )
        while not client.exists(run_key("r")):
            time.sleep(0.001)
        pool.submit(work).result()
        assert entering.result().enqueued == 100
    assert 0 < max(most) <= 20
    assert told[-1] == 100


def test_a_bounded_submission_of_a_run_that_is_cancelled_ends(client, output):
    plan = plan_of_jobs(some_jobs(100))
    with ThreadPoolExecutor() as pool:
        entering = pool.submit(submit, plan, output=output, run="r", client=client, max_pending=20)
        while not client.exists(queue_key("r", SHAPE)):
            time.sleep(0.001)
        cancel(client, "r")
        with pytest.raises(LedgerError, match="cancelled"):
            entering.result()


def test_the_priority_is_the_runs(client, enter):
    enter(some_jobs(1), priority="urgent", keep_s=60)
    assert (Ledger(client).status("r").priority, Ledger(client).status("r").keep_s) == ("urgent", 60)


@pytest.mark.slow
def test_a_submitter_killed_in_the_middle_and_run_again_enters_each_job_once(client, start_submitter):
    killed = start_submitter(MANY)
    try:
        while killed.poll() is None and not client.exists(queue_key("r", SHAPE)):
            time.sleep(0.001)
    finally:
        killed.kill()
        killed.wait()
    entered = Ledger(client).status("r").enqueued
    assert 0 < entered < MANY, "killed too early or too late to show anything"
    assert len(waiting(client)) == entered
    assert start_submitter(MANY).wait() == 0
    assert waiting(client) == list(range(MANY))
    assert Ledger(client).status("r").enqueued == MANY


@pytest.mark.slow
def test_two_submitters_at_once_enter_each_job_once(client, output, start_submitter):
    count = 20 * CHUNK
    assert [submitter.wait() for submitter in [start_submitter(count), start_submitter(count)]] == [0, 0]
    assert waiting(client) == list(range(count))
    assert len(list(output.child("r").list("plan/"))) == 1
