"""`promptmill resume`: a run from its output alone, when Redis knows it no more."""

import dataclasses

import click

from promptmill.producer.words import count
from promptmill.verbs.runs import answer, connected, run_options


@click.command("resume")
@run_options
@click.option("--output", required=True, metavar="URL", help="Where the run was submitted to.")
def command(run: str, output: str, broker: str | None, as_json: bool) -> int:
    """Enqueue what RUN still lacks, from the plan and the images in its output: no prompt file is needed.

    For a Redis that was wiped, or whose keys of the run have expired or been purged, and for a run that was cancelled.
    """
    from promptmill.producer.outputs.open import open_output
    from promptmill.producer.submit import resume

    client, root = connected(broker), open_output(output)
    root.reach()
    result = resume(root, run, client)
    sentence = f"{result.present} of {count(result.images, 'image')} there, {result.enqueued} entered into the queue"
    answer(as_json, f"{run}: {sentence}", **dataclasses.asdict(result))
    return 0
