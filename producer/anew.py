"""Jobs of a run that are rendered again, as their images are broken or gone; all else of the run stays as it is."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import redis

from promptmill.producer.errors import LedgerError
from promptmill.producer.outputs.output import Output
from promptmill.producer.plan import Plan
from promptmill.producer.presence import Present
from promptmill.producer.queue.control import purge
from promptmill.producer.queue.ledger import Ledger
from promptmill.producer.queue.queue import JobQueue
from promptmill.producer.submit import submit


@contextmanager
def rendered_anew(
    plan: Plan, indexes: Sequence[int], *, output: Output, run: str, client: redis.Redis
) -> Iterator[None]:
    """Enter just these jobs of a run, whose images are not there. Whoever waits for the run waits for them.

    `output` is where runs lie. A run that this Redis does not know is known for as long as the context lasts. Raises
    LedgerError, PlanError, OutputError.
    """
    ledger = Ledger(client)
    digest = ledger.digest(run)
    if digest is None:
        submit(plan, output=output, run=run, client=client, there=_all_but(plan, indexes))
        try:
            yield
        finally:  # it counts holes as images
            purge(client, run, force=True)
        return
    known = ledger.status(run).output
    if digest != plan.digest or known != output.url:
        other = f"at {known}" if known != output.url else "with another plan"
        raise LedgerError(f"run {run!r} is known to this Redis {other}: repair it without a Redis (no --broker)")
    entries = ((job.index, job.shape_key, job.own_json) for job in plan.at(indexes))
    JobQueue(client).reenter(run, entries)
    yield


def _all_but(plan: Plan, indexes: Sequence[int]) -> Present:
    missing, there, shapes = set(indexes), bytearray(plan.jobs), Counter[str]()
    for job in plan:
        if job.first and job.index not in missing:
            there[job.index] = 1
            shapes[job.shape_key] += 1
    return Present(there, {shape: shapes[shape.key] for shape in plan.shape_list})


def reasons(client: redis.Redis, run: str, indexes: Sequence[int]) -> Mapping[int, str]:
    """Why jobs of these indexes failed, by index."""
    wanted = set(indexes)
    return {one.index: one.reason for one in Ledger(client).failures(run) if one.index in wanted}
