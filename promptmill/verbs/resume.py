"""`promptmill resume`: a run from its output alone, when Redis knows it no more."""

import dataclasses

import click

from promptmill.producer.words import count
from promptmill.verbs.options import broker_option, json_option
from promptmill.verbs.runs import answer, connected


@click.command("resume")
@click.argument("run")
@click.option("--output", metavar="URL", help="Where the run was submitted to.  [of RUN, where that is a path or URL]")
@broker_option
@json_option
def command(run: str, output: str | None, broker: str | None, as_json: bool) -> int:
    """Enqueue what RUN still lacks, from the plan and the images in its output: no prompt file is needed.

    For a Redis that was wiped, or whose keys of the run have expired or been purged, and for a run that was cancelled.
    """
    from promptmill.producer.outputs.open import open_output
    from promptmill.producer.submit import resume

    if "/" in run:
        typed = click.get_current_context().get_parameter_source("output") is click.core.ParameterSource.COMMANDLINE
        if typed:
            raise click.UsageError(f"{run} says where the run lies: leave out --output, or name the run alone")
        output, _, run = run.rstrip("/").rpartition("/")
    if not output:
        raise click.UsageError(f"name the run's folder or URL, such as out/{run}, or give --output")
    client, root = connected(broker), open_output(output)
    root.reach()
    result = resume(root, run, client)
    sentence = f"{result.present} of {count(result.images, 'image')} there, {result.enqueued} entered into the queue"
    answer(as_json, f"{run}: {sentence}", **dataclasses.asdict(result))
    return 0
