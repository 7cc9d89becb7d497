"""`promptmill pause`: workers take nothing more of a run, until it is resumed."""

import click

from promptmill.verbs.runs import connected, find_run, run_options, tell_state


@click.command("pause")
@run_options
def command(run: str, broker: str | None, as_json: bool) -> int:
    """Pause RUN: workers finish what they hold of it and take no more, until `promptmill unpause RUN`."""
    from promptmill.producer.queue.control import pause

    client = connected(broker)
    find_run(client, run)
    pause(client, run)
    tell_state(client, run, as_json)
    return 0
