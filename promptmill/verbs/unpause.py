"""`promptmill unpause`: the end of a pause."""

import click

from promptmill.verbs.runs import connected, find_run, run_options, tell_state


@click.command("unpause")
@run_options
def command(run: str, broker: str | None, as_json: bool) -> int:
    """Continue RUN after `promptmill pause RUN`. (After a cancel, or a wiped Redis: `promptmill resume`.)"""
    from promptmill.producer.errors import LedgerError
    from promptmill.producer.queue.control import unpause

    client = connected(broker)
    if find_run(client, run).state == "cancelled":
        raise LedgerError(f"run {run!r} was cancelled; `promptmill resume {run} --output URL` takes it up again")
    unpause(client, run)
    tell_state(client, run, as_json)
    return 0
