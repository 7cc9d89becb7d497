"""Failed jobs as a person is told of them: index, file and line of the row, the prompt, and why."""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from promptmill.producer.words import count

if TYPE_CHECKING:
    from promptmill.producer.plan_lines import PlannedJob
    from promptmill.producer.queue.ledger import Failure

SHOWN_FAILURES = 5
SHOWN_REASONS = 10
SHOWN_OF_A_REASON = 3
PROMPT_CHARS = 60

FailedJob = dict[str, Any]
"""`index`, `id`, `reason`, `prompt` and `row` (FILE:LINE); the last two are None where the plan does not say."""


class Planned:
    """What a run's plan says of its jobs, each read once. A plan that cannot be read says nothing."""

    def __init__(self, run_url: str) -> None:
        self._url = run_url
        self._known: dict[int, PlannedJob] = {}

    def at(self, indexes: Iterable[int]) -> Mapping[int, "PlannedJob"]:
        """The jobs at these indexes, as far as they can be read."""
        from promptmill.jobs_of import planned_at
        from promptmill.producer.errors import PromptmillError
        from promptmill.producer.outputs.open import open_output

        new = sorted(set(indexes) - self._known.keys())
        with contextlib.suppress(PromptmillError):  # the failures are told without
            self._known.update({job.index: job for job in planned_at(open_output(self._url), new)} if new else {})
        return self._known


def failed_jobs(failures: Iterable["Failure"], planned: Mapping[int, "PlannedJob"]) -> list[FailedJob]:
    """The failures in the run's order, with what is known of their jobs."""
    told = []
    for failure in sorted(failures, key=lambda failure: failure.index):
        job = planned.get(failure.index)
        what = {"prompt": job.prompt, "row": job.row} if job else {"prompt": None, "row": None}
        told.append({"index": failure.index, "id": failure.id, "reason": failure.reason, **what})
    return told


def where(job: Mapping[str, Any]) -> str:
    """`index 3, cats.csv:4: a red cat`."""
    row = f", {job['row']}" if job["row"] else ""
    prompt = f": {shortened(job['prompt'])}" if job["prompt"] else ""
    return f"index {job['index']}{row}{prompt}"


def shortened(prompt: str) -> str:
    """A prompt on one line, and not too long."""
    line = " ".join(prompt.split())
    return line if len(line) <= PROMPT_CHARS else f"{line[: PROMPT_CHARS - 3].rstrip()}..."


def tell_failures(failed: Sequence[FailedJob], total: int, more: str) -> None:
    """The first of a run's failures on stderr; `more` says where the others of the `total` are."""
    for job in failed[:SHOWN_FAILURES]:
        click.secho(f"failed: {where(job)}: {job['reason']}", err=True, fg="red")
    if total > SHOWN_FAILURES:
        click.echo(f"... and {total - SHOWN_FAILURES} more: {more}", err=True)


def shown_of(failures: Iterable["Failure"]) -> set[int]:
    """The indexes that `by_reason` shows."""
    reasons = _most_frequent([(failure.reason, failure.index) for failure in failures])
    return {index for _, at in reasons[:SHOWN_REASONS] for index in at[:SHOWN_OF_A_REASON]}


def by_reason(failed: Sequence[FailedJob]) -> list[str]:
    """Lines with the most frequent reasons, each with how often and the first of its jobs."""
    jobs = {job["index"]: job for job in failed}
    reasons, lines = _most_frequent([(job["reason"], job["index"]) for job in failed]), list[str]()
    for reason, at in reasons[:SHOWN_REASONS]:
        lines += [f"  {len(at)} failed: {reason}"]
        lines += [f"    {where(jobs[index])}" for index in at[:SHOWN_OF_A_REASON]]
        more = len(at) - SHOWN_OF_A_REASON
        lines += [f"    ... and {more} more: --json lists them all"] if more > 0 else []
    more = len(reasons) - SHOWN_REASONS
    return [*lines, *([f"  ... and {count(more, 'more reason')}: --json lists them all"] if more > 0 else [])]


def _most_frequent(failures: Iterable[tuple[str, int]]) -> list[tuple[str, list[int]]]:
    indexes: dict[str, list[int]] = {}
    for reason, index in sorted(failures, key=lambda failure: failure[1]):
        indexes.setdefault(reason, []).append(index)
    return sorted(indexes.items(), key=lambda item: (-len(item[1]), item[1]))
