"""What a person does to a run: cancel, pause, go on, change its priority, purge. Each is one step of Redis.

Workers need not be told: they claim from what is in line, and a run that is paused or cancelled is not. What they hold
of it they finish, which is a batch or two.
"""

import redis

from promptmill.producer.errors import LedgerError
from promptmill.producer.queue.ledger import check_priority
from promptmill.producer.queue.scripts import Script

__all__ = ["cancel", "pause", "purge", "set_priority", "unpause"]


def cancel(client: redis.Redis, run: str) -> int:
    """How many images will not be rendered; 0 of a finished run. What workers hold may still land, and then counts.

    A cancelled run begins anew when it is submitted or resumed. Raises LedgerError for an unknown run.
    """
    return _known(run, Script(client, "cancel")(run))


def pause(client: redis.Redis, run: str) -> None:
    """Lets nothing more of a run be claimed, for now. Of a run that is over: nothing. Raises LedgerError."""
    _known(run, Script(client, "change")(run, "state", "paused"))


def unpause(client: redis.Redis, run: str) -> None:
    """Ends a pause. Raises LedgerError."""
    _known(run, Script(client, "change")(run, "state", "running"))


def set_priority(client: redis.Redis, run: str, name: str) -> None:
    """Puts a run before or behind others from the next batch on. `name` is one of PRIORITIES. Raises LedgerError."""
    check_priority(name)
    _known(run, Script(client, "change")(run, "priority", name))


def purge(client: redis.Redis, run: str, *, force: bool = False) -> None:
    """Takes all keys of a run out of Redis. Plan and images stay in its output.

    Raises LedgerError for an unknown run, and for one that is neither finished nor cancelled, unless `force` is set.
    """
    if not _known(run, Script(client, "purge")(run, int(force))):
        raise LedgerError(f"run {run!r} is not finished: cancel it first, or purge it with --force")


def _known(run: str, answer: int) -> int:
    if answer < 0:
        raise LedgerError(f"no run {run!r} in this Redis; `promptmill list` shows those there are")
    return answer
