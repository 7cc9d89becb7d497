"""`promptmill submit`: prompt files into the queue."""

import dataclasses
import json
from typing import Any

import click

from promptmill.producer.queue.priorities import PRIORITIES
from promptmill.producer.words import count
from promptmill.progress import Progress
from promptmill.verbs.dry_run import dry_run, dry_run_options
from promptmill.verbs.growing_options import change_of, growing_options, start_in
from promptmill.verbs.options import broker_option, json_option, run_option
from promptmill.verbs.planning import (
    make_plan,
    name_run,
    plan_options,
    prompt_file_options,
    source_names,
    tell_skipped,
    warn,
    warn_of_images,
)


@click.command("submit")
@prompt_file_options
@click.option("--output", required=True, metavar="URL", help="gs://bucket/prefix, or a folder.")
@run_option
@broker_option
@click.option(
    "--priority",
    type=click.Choice(list(PRIORITIES)),
    default="normal",
    show_default=True,
    help="Urgent runs are rendered before normal ones, low ones last.",
)
@click.option(
    "--max-pending",
    type=click.IntRange(1),
    metavar="N",
    help="Keep at most N jobs in Redis, and wait for workers before enqueueing more.  [all at once]",
)
@growing_options
@dry_run_options
@json_option
def command(
    files: tuple[str, ...],
    output: str,
    run: str | None,
    broker: str | None,
    priority: str,
    max_pending: int | None,
    as_json: bool,
    **given: Any,
) -> int:
    """Put prompt files into the queue, for workers to render.

    Every row of a FILE (docs/prompt-files.md) becomes a job, or several. The flags named after a job's fields
    hold for rows that do not have the field. The same command again enqueues no job twice; after rows
    were appended to FILE it enqueues the new ones. Prints the run's name.
    """
    from promptmill.producer.broker import DEFAULT_URL, connect, eviction
    from promptmill.producer.outputs.open import open_output
    from promptmill.producer.submit import check_output, submit

    if given["dry_run"]:
        return dry_run(files, output, run, broker, as_json, given)
    change, root, sources = change_of(given), open_output(output), source_names(files)
    root.reach()
    with make_plan(files, plan_options(given, start_in(root, run, sources, change))) as plan:
        tell_skipped(plan)
        run = name_run(run, plan, files, root, change)
        client = connect(broker or DEFAULT_URL)  # first, as what is refused leaves no folder behind
        check_output(plan, root, run, client)
        if warning := eviction(client):
            click.echo(f"Warning: {warning}", err=True)
        warn(plan, given["preset"])
        with Progress("enqueued", plan.jobs, unit="jobs") as progress:
            result = submit(
                plan,
                output=root,
                run=run,
                client=client,
                sources=sources,
                priority=priority,
                max_pending=max_pending,
                progress=progress.to,
                change=change,
            )
        rate = f" ({progress.rate:,.0f} jobs/s)" if progress.rate else ""
    warn_of_images(result.output, result.broken, result.taken, result.taken_names)
    counts = {"had failed": result.failed, "were revoked": result.revoked}
    again = "".join(f", {number} of which {what}" for what, number in counts.items() if number)
    click.echo(
        f"{count(result.jobs, 'job')}, {count(result.images, 'image')}: {result.enqueued} enqueued now{rate}{again}, "
        f"{result.present} were there",
        err=True,
    )
    click.echo(json.dumps(dataclasses.asdict(result)) if as_json else result.run)
    return 0
