"""Plan -> queue and ledger, in bulk. Safe to kill at any moment and to run again: what is in stays in, once."""

from collections.abc import Callable, Set
from dataclasses import dataclass

import redis

from producer.job import JobId
from producer.ledger import Ledger
from producer.output import Output
from producer.plan import Plan, common_fields, write_plan
from producer.queue import CHUNK, JobQueue

IMAGES = "images"


def image_name(job_id: JobId, extension: str = "png") -> str:
    """The job's object under its run's output. The hash leads: a bucket dislikes sequential names."""
    return f"{IMAGES}/{job_id[:2]}/{job_id}.{extension}"


@dataclass(frozen=True, slots=True)
class Submission:
    """What a submission found and did. `jobs` are rows, `images` the distinct ones, `present` those that were there."""

    run: str
    output: str
    jobs: int
    images: int
    present: int
    enqueued: int


def images_present(run_output: Output) -> set[JobId]:
    """The ids of the jobs whose image is in the output."""
    return {JobId(name.rpartition("/")[2].partition(".")[0]) for name in run_output.list(f"{IMAGES}/")}


def submit(
    plan: Plan,
    *,
    output: Output,
    run: str,
    client: redis.Redis,
    sources: list[str] | None = None,
    there: Set[JobId] | None = None,
    progress: Callable[[int], None] = lambda enqueued: None,
) -> Submission:
    """Writes the plan to the output, enters the run in Redis, and enqueues what has no image yet.

    `output` is where runs lie; this one comes under its name. `there` are the jobs whose image is known to be
    in the output; without it, the output is listed. `progress` is told the places entered so far.
    Raises PlanError, LedgerError, OutputError, and redis' own errors.
    """
    run_output = output.child(run)
    write_plan(run_output, run, plan, sources or [])
    ledger, queue = Ledger(client), JobQueue(client)
    ledger.open(
        run,
        output=output.url,
        digest=plan.digest,
        jobs=len(plan.jobs),
        images=len(plan.first_index),
        common=common_fields(plan.jobs),
    )
    there = images_present(run_output) if there is None else there
    entered = before = ledger.status(run).enqueued
    enqueued = 0
    while entered < len(plan.jobs):
        end = min(entered + CHUNK, len(plan.jobs))
        firsts = [index for index in range(entered, end) if plan.first_index[plan.ids[index]] == index]
        missing = [(index, plan.jobs[index]) for index in firsts if plan.ids[index] not in there]
        present = [index for index in firsts if plan.ids[index] in there]
        at = queue.enqueue(run, entered, end, missing, present)
        enqueued += len(missing) if at == end else 0
        entered = at
        progress(entered - before)
    gone = (at for job_id, at in plan.first_index.items() if at < before and job_id not in there)
    enqueued += queue.reenter(run, ((at, plan.jobs[at]) for at in gone))
    status = ledger.status(run)
    return Submission(run, run_output.url, status.jobs, status.images, status.present, enqueued)
