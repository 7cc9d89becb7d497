"""`promptmill cancel`: what is not rendered yet never will be."""

import click

from promptmill.producer.words import count
from promptmill.verbs.runs import answer, connected, find_run, run_options


@click.command("cancel")
@run_options
def command(run: str, broker: str | None, as_json: bool) -> int:
    """Cancel RUN: images that are not there yet will not be rendered. Those that are there stay.

    Workers drop what they hold of it within one batch. `promptmill resume RUN --output URL` takes it up again.
    """
    from promptmill.producer.queue.control import cancel

    client = connected(broker)
    if find_run(client, run).state == "finished":
        answer(as_json, f"{run} is finished: there is nothing to cancel", run=run, cancelled=0, state="finished")
        return 0
    cancelled = cancel(client, run)
    status = find_run(client, run)
    sentence = f"{run}: cancelled; {count(cancelled, 'image')} will not be rendered, {status.done} are there"
    answer(as_json, sentence, run=run, cancelled=cancelled, state=status.state)
    return 0
