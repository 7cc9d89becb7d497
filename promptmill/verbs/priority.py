"""`promptmill priority`: which runs go first."""

import click

from promptmill.producer.queue.priorities import PRIORITIES
from promptmill.verbs.runs import answer, connected, find_run, run_options


@click.command("priority")
@run_options
@click.argument("level", type=click.Choice(list(PRIORITIES)), metavar=f"[{'|'.join(PRIORITIES)}]")
def command(run: str, level: str, broker: str | None, as_json: bool) -> int:
    """Set RUN's priority: from the next batch on, urgent runs are rendered before normal ones, and low ones last.

    Runs of one priority take turns.
    """
    from promptmill.producer.queue.control import set_priority

    client = connected(broker)
    find_run(client, run)
    set_priority(client, run, level)
    answer(as_json, f"{run}: {level}", run=run, priority=level)
    return 0
