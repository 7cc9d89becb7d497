"""`promptmill submit`: prompt files into the queue."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import click

from promptmill.options import broker_option, env, job_defaults, job_options, json_option, run_option


@click.command("submit")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--output", required=True, envvar=env("output"), metavar="URL", help="gs://bucket/prefix, or a folder.")
@run_option
@broker_option
@json_option
@job_options
def command(
    files: tuple[str, ...], output: str, run: str | None, broker: str | None, as_json: bool, **given: Any
) -> int:
    """Put prompt files into the queue, for workers to render.

    Every row of a FILE (.txt, .jsonl) becomes a job. The flags named after a job's fields are the defaults of rows
    that do not say otherwise. Submitting the same again enqueues nothing twice. Prints the run's name.
    """
    from producer.broker import DEFAULT_URL, connect
    from producer.outputs import open_output
    from producer.plan import read_plan
    from producer.submit import submit
    from promptmill.progress import Progress
    from promptmill.render import name_run, warn

    plan = read_plan(files, job_defaults(given), given["preset"])
    place = open_output(output)
    run = name_run(run, plan, files, place.url)
    place.check()
    client = connect(broker or DEFAULT_URL)
    warn(plan, given["preset"])
    with Progress("enqueued", len(plan.jobs)) as progress:
        result = submit(
            plan,
            output=place,
            run=run,
            client=client,
            sources=[Path(file).name for file in files],
            progress=progress.to,
        )
    click.echo(
        f"{result.jobs} jobs, {result.images} images: {result.enqueued} enqueued now, {result.present} were there",
        err=True,
    )
    click.echo(json.dumps(dataclasses.asdict(result)) if as_json else result.run)
    return 0
