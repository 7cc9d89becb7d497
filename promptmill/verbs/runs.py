"""What the verbs about runs share: how they find a run, and how they answer."""

import difflib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from promptmill.verbs.options import broker_option, json_option

if TYPE_CHECKING:
    import redis

    from promptmill.producer.queue.ledger import RunStatus

OVER = ("finished", "cancelled")
"""The states in which nothing more happens to a run by itself."""

F = TypeVar("F", bound=Callable[..., Any])


def run_options(function: F) -> F:
    """The argument RUN, --broker and --json: of each verb that is about one run."""
    for option in (json_option, broker_option, click.argument("run")):
        function = option(function)
    return function


def connected(broker: str | None) -> "redis.Redis":
    """A client of the Redis that was named, or of the usual one. Raises BrokerError."""
    from promptmill.producer.broker import DEFAULT_URL, connect

    return connect(broker or DEFAULT_URL)


def find_run(client: "redis.Redis", run: str) -> "RunStatus":
    """Where the run stands. Raises LedgerError for an unknown one, with the names that are like it."""
    from promptmill.producer.errors import LedgerError
    from promptmill.producer.queue.keys import run_key
    from promptmill.producer.queue.ledger import Ledger

    if not client.exists(run_key(run)):
        near = difflib.get_close_matches(run, [status.run for status in Ledger(client).runs()], n=3)
        meant = f"did you mean {' or '.join(map(repr, near))}?" if near else "`promptmill list` shows those there are"
        raise LedgerError(f"no run {run!r} in this Redis; {meant}")
    return Ledger(client).status(run)


def answer(as_json: bool, sentence: str, **data: Any) -> None:
    """What was done: words on stderr, data on stdout where --json asks for it."""
    click.echo(sentence, err=True)
    if as_json:
        click.echo(json.dumps(data, ensure_ascii=False))


def tell_state(client: "redis.Redis", run: str, as_json: bool) -> None:
    """The answer of a verb that changed the run's state."""
    status = find_run(client, run)
    to_go = f"{status.left} of {count(status.images, 'image')} to go"
    answer(as_json, f"{run}: {status.state}, {to_go}", run=run, state=status.state)


def count(number: int, what: str) -> str:
    """`1 image`, `2 images`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
