"""`promptmill list`: the runs that Redis knows."""

import dataclasses
import json
import time
from collections.abc import Sequence
from typing import Any

import click

from promptmill.verbs.options import broker_option, json_option
from promptmill.verbs.runs import connected

NUMBERS = ("images", "done", "failed", "cancelled", "left", "age")
COLUMNS = ("run", "state", "priority", *NUMBERS)


@click.command("list")
@broker_option
@json_option
def command(broker: str | None, as_json: bool) -> int:
    """List the runs that Redis knows, the newest first, with state, priority, counts and age."""
    from promptmill.producer.queue.ledger import Ledger

    runs = [
        {**dataclasses.asdict(status), "left": status.left, "age_s": round(max(time.time() - status.created, 0.0), 1)}
        for status in Ledger(connected(broker)).runs()
    ]
    click.echo(json.dumps({"runs": runs}, ensure_ascii=False) if as_json else table(runs))
    return 0


def table(runs: Sequence[dict[str, Any]]) -> str:
    """The same for a person."""
    if not runs:
        return "no runs"
    rows = [list(COLUMNS), *([str({**run, "age": age(run["age_s"])}[name]) for name in COLUMNS] for run in runs)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(COLUMNS))]
    return "\n".join("  ".join(map(_fitted, row, widths, COLUMNS)).rstrip() for row in rows)


def _fitted(text: str, width: int, column: str) -> str:
    return text.rjust(width) if column in NUMBERS else text.ljust(width)


def age(seconds: float) -> str:
    """`12 s`, `3 min`, `5 h`, `2 d`: to the last whole unit."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"
