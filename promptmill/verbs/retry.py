"""`promptmill retry`: another try for a run's failed jobs."""

import click

from promptmill.verbs.runs import answer, connected, count, find_run, run_options


@click.command("retry")
@run_options
def command(run: str, broker: str | None, as_json: bool) -> int:
    """Enter RUN's failed jobs into the queue anew, each with three deliveries as at first."""
    from promptmill.producer.outputs.open import open_output
    from promptmill.producer.submit import retry

    client = connected(broker)
    status = find_run(client, run)
    entered = retry(open_output(status.output), run, client) if status.failed else 0
    sentence = f"{count(entered, 'failed job')} entered anew" if entered else "no failed jobs"
    answer(as_json, f"{run}: {sentence}", run=run, retried=entered)
    return 0
