"""`promptmill export`: a run's images under names that people can read, or in another program's form."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import click

from promptmill.producer.words import count
from promptmill.progress import Progress
from promptmill.verbs.list import labels_of
from promptmill.verbs.options import Indexes, broker_option, json_option
from promptmill.verbs.runs import answer


@click.command("export")
@click.argument("run")
@click.argument("folder", metavar="[FOLDER]", required=False, type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--name",
    default="{index:06d}-{slug}",
    show_default=True,
    metavar="TEMPLATE",
    help="File name without suffix, from index, slug (of the prompt), id, seed and labels; / makes folders.",
)
@click.option("--captions", is_flag=True, help="Write each prompt beside its image, as NAME.txt.")
@click.option("--copy", is_flag=True, help="Copy images instead of hard-linking them.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist and differ.")
@click.option(
    "--openai",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Write output.jsonl and error.jsonl into this folder, as OpenAI's Batch API does.",
)
@click.option("--urls", is_flag=True, help="With --openai: images as URLs instead of base64.")
@click.option("--index", "indexes", type=Indexes(), help="Only the jobs of these indexes.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Only the jobs with this label.")
@click.option("--prompt", metavar="TEXT", help="Only the jobs whose prompt contains this text.")
@broker_option
@json_option
def command(
    run: str,
    folder: Path | None,
    name: str,
    captions: bool,
    copy: bool,
    overwrite: bool,
    openai: Path | None,
    urls: bool,
    indexes: tuple[range, ...] | None,
    labels: Sequence[str],
    prompt: str | None,
    broker: str | None,
    as_json: bool,
) -> int:
    """Link or copy RUN's images into FOLDER, under names such as 000017-a-red-apple.png.

    RUN is the run's folder or URL (out/RUN, gs://bucket/prefix/RUN), or its name in Redis. A run in a folder
    gives hard links: use --copy before editing them. Jobs that share an image get one file each. The same command again
    goes on where it was stopped.
    """
    from promptmill.export import Settings, export
    from promptmill.jobs_of import Wanted
    from promptmill.openai_answers import answer_batch
    from promptmill.producer.plan_files import load_plan
    from promptmill.verbs.run_output import failures_of, find_run_output

    if folder is None and openai is None:
        raise click.UsageError("say where to: promptmill export RUN FOLDER, or --openai FOLDER")
    wanted = Wanted(indexes or (), labels_of(labels), prompt)
    output, missing = find_run_output(run, broker), 0
    with load_plan(output) as plan:
        if folder is not None:
            settings = Settings(folder, name, captions, copy, overwrite)
            with Progress("exported", plan.jobs) as progress:
                done = export(
                    output,
                    plan,
                    settings,
                    takes=lambda job: wanted.takes(job, json.loads(job.own_json)["prompt"]),
                    progress=progress.to,
                )
            missing += done.missing
            kept = f", {done.kept} were there" if done.kept else ""
            without = f"; {count(done.missing, 'job')} without an image" if done.missing else ""
            answer(as_json, f"{folder}: {count(done.images, 'image')}{kept}{without}", **dataclasses.asdict(done))
        if openai is not None:
            told = answer_batch(output, plan, openai, failures_of(output, broker), urls=urls)
            missing += told.failed
            requests = f"{count(told.answered, 'request')} answered, {told.failed} not"
            answer(as_json, f"{openai}: {requests}", **dataclasses.asdict(told))
    return 1 if missing else 0
