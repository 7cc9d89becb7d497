"""`promptmill list`: the runs that Redis knows, or the jobs of one."""

import dataclasses
import json
import time
from collections.abc import Sequence
from typing import Any

import click

from promptmill.verbs.options import Indexes, broker_option, json_option
from promptmill.verbs.runs import connected, run_url

NUMBERS = ("images", "done", "failed", "cancelled", "left", "age")
COLUMNS = ("run", "state", "priority", *NUMBERS)


@click.command("list")
@click.argument("run", metavar="[RUN]", required=False)
@click.option("--index", "indexes", type=Indexes(), help="Only the jobs of these indexes.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Only the jobs with this label.")
@click.option("--prompt", metavar="TEXT", help="Only the jobs whose prompt contains this text.")
@broker_option
@json_option
def command(
    run: str | None,
    indexes: tuple[range, ...] | None,
    labels: Sequence[str],
    prompt: str | None,
    broker: str | None,
    as_json: bool,
) -> int:
    """List the runs that Redis knows, or the jobs of RUN: index, state, where the image lies, the row, the prompt.

    RUN is a run's folder or URL (out/RUN, gs://bucket/prefix/RUN), or its name in Redis. With --json, RUN's jobs are
    one object per line.
    """
    if run is not None:
        return _list_jobs(run, indexes or (), labels_of(labels), prompt, broker, as_json)
    if indexes or labels or prompt is not None:
        raise click.UsageError("--index, --label and --prompt need a RUN: promptmill list RUN --index 17")
    return _list_runs(broker, as_json)


def labels_of(labels: Sequence[str]) -> dict[str, str]:
    """The labels that flags name. Raises click.UsageError."""
    pairs = [label.partition("=") for label in labels]
    for name, equals, _ in pairs:
        if not equals:
            raise click.UsageError(f"--label {name}: expected NAME=VALUE")
    return {name: value for name, _, value in pairs}


def _list_jobs(
    run: str, indexes: Sequence[range], labels: dict[str, str], prompt: str | None, broker: str | None, as_json: bool
) -> int:
    from promptmill.jobs_of import Wanted, jobs_of
    from promptmill.verbs.run_output import failures_of, find_run_output

    output, found = find_run_output(run, broker), 0
    for job in jobs_of(output, Wanted(indexes, labels, prompt), failures_of(output, broker)):
        found += 1
        reason, row = f"  ({job.reason})" if job.reason else "", f"  {job.row}" if job.row else ""
        line = f"{job.index}  {job.state}  {job.url}{row}  {job.prompt}{reason}".replace("\n", " ")
        click.echo(json.dumps(dataclasses.asdict(job), ensure_ascii=False) if as_json else line)
    if not found:
        click.echo(f"no such job in {output.url}", err=True)
    return 0


def _list_runs(broker: str | None, as_json: bool) -> int:
    from promptmill.producer.queue.ledger import Ledger

    runs = [
        {
            **dataclasses.asdict(status),
            "output": run_url(status),
            "left": status.left,
            "age_s": round(max(time.time() - status.created, 0.0), 1),
        }
        for status in Ledger(connected(broker)).runs()
    ]
    click.echo(json.dumps({"runs": runs}, ensure_ascii=False) if as_json else table(runs))
    return 0


def table(runs: Sequence[dict[str, Any]]) -> str:
    """The same for a person."""
    if not runs:
        return "no runs"
    rows = [list(COLUMNS), *([str({**run, "age": age(run["age_s"])}[name]) for name in COLUMNS] for run in runs)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(COLUMNS))]
    return "\n".join("  ".join(map(_fitted, row, widths, COLUMNS)).rstrip() for row in rows)


def _fitted(text: str, width: int, column: str) -> str:
    return text.rjust(width) if column in NUMBERS else text.ljust(width)


def age(seconds: float) -> str:
    """`12 s`, `3 min`, `5 h`, `2 d`: to the last whole unit."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"
