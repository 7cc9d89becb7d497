"""`promptmill retry`: another try for a run's failed jobs."""

import click

from promptmill.producer.words import count
from promptmill.verbs.options import Indexes
from promptmill.verbs.runs import answer, connected, find_run, run_options


@click.command("retry")
@run_options
@click.option("--reason", metavar="TEXT", help="Only the jobs whose reason of failure contains this text.")
@click.option("--index", "indexes", type=Indexes(), help="Only the jobs of these indexes.")
def command(run: str, reason: str | None, indexes: tuple[range, ...] | None, broker: str | None, as_json: bool) -> int:
    """Enqueue RUN's failed jobs again, each with three new deliveries."""
    from promptmill.producer.outputs.open import open_output
    from promptmill.producer.submit import retry

    client = connected(broker)
    output = open_output(find_run(client, run).output)
    entered = retry(output, run, client, reason=reason, indexes=indexes or ())
    which = " such" if reason is not None or indexes else ""
    sentence = f"{count(entered, 'failed job')} entered anew" if entered else f"no{which} failed jobs"
    answer(as_json, f"{run}: {sentence}", run=run, retried=entered)
    return 0
