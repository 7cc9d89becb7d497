"""`promptmill purge`: a run out of Redis."""

import click

from promptmill.verbs.runs import answer, connected, find_run, run_options, run_url


@click.command("purge")
@run_options
@click.option("--force", is_flag=True, help="Purge even if the run is not finished.")
def command(run: str, broker: str | None, as_json: bool, force: bool) -> int:
    """Delete RUN from Redis, with its failures and counts. Plan and images stay in its output."""
    from promptmill.producer.queue.control import purge

    client = connected(broker)
    status = find_run(client, run)
    purge(client, run, force=force)
    url = run_url(status)
    answer(as_json, f"{run}: purged; its images stay in {url}", run=run, purged=True, output=url)
    return 0
