"""What the verbs about runs share: how they find a run, and how they answer."""

import difflib
import functools
import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from promptmill.producer.words import count
from promptmill.verbs.options import broker_option, json_option

if TYPE_CHECKING:
    import redis

    from promptmill.producer.queue.ledger import RunStatus

OVER = ("finished", "cancelled")
"""The states in which nothing more happens to a run by itself."""

AGAIN_AFTER_S = 0.5
WATCHING_TIMEOUT_S = 1.5
"""For how long whoever watches waits for an answer of Redis, four times: a Redis that hangs is told within seconds."""

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


def run_options(function: F) -> F:
    """The argument RUN, --broker and --json: of each verb that is about one run in Redis."""

    @functools.wraps(function)
    def with_name(*args: Any, run: str, broker: str | None, **given: Any) -> Any:
        return function(*args, run=name_in_redis(run, broker), broker=broker, **given)

    for option in (json_option, broker_option, click.argument("run")):
        with_name = option(with_name)
    return cast("F", with_name)


def name_in_redis(run: str, broker: str | None) -> str:
    """The name of a run that is given by it, or by its folder or URL.

    Raises LedgerError where Redis does not know the name, or knows it of a run that lies elsewhere.
    """
    from promptmill.producer.errors import LedgerError
    from promptmill.producer.outputs.open import open_output

    if "/" not in run:
        return run
    url = open_output(run).url.rstrip("/")
    name = url.rpartition("/")[2]
    known = run_url(find_run(connected(broker), name))
    if known != url:
        raise LedgerError(f"run {name!r} in this Redis is at {known}, not at {url}")
    return name


def connected(broker: str | None) -> "redis.Redis":
    """A client of the Redis that was named, or of the usual one. Raises BrokerError."""
    from promptmill.producer.broker import DEFAULT_URL, connect

    return connect(broker or DEFAULT_URL)


def watching(broker: str | None) -> "redis.Redis":
    """The same for a verb that looks again and again. Raises BrokerError."""
    from promptmill.producer.broker import DEFAULT_URL, connect

    return connect(broker or DEFAULT_URL, timeout_s=WATCHING_TIMEOUT_S)


def _say(text: str) -> None:
    click.echo(text, err=True)


def go_on_without_redis(look: Callable[[], T], say: Callable[[str], None] = _say) -> T:
    """What the look finds; while Redis is away, say so once and look again."""
    import redis

    told = False
    while True:
        try:
            found = look()
        except (redis.ConnectionError, redis.TimeoutError) as error:
            if not told:
                say(click.style(f"waiting: Redis: {error}", fg="yellow"))
            told = True
            time.sleep(AGAIN_AFTER_S)
        else:
            if told:
                say("Redis answers again")
            return found


def run_url(status: "RunStatus") -> str:
    """The run's own folder or URL: what `output` means in every verb's JSON."""
    return f"{status.output.rstrip('/')}/{status.run}"


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
