"""`promptmill repair`: what is broken or missing of a run, put back."""

import contextlib
import dataclasses
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from promptmill.producer.words import count
from promptmill.verbs.options import broker_option, json_option
from promptmill.verbs.verify import check_packages
from promptmill.verbs.worker_options import check_environ, check_options

if TYPE_CHECKING:
    from promptmill.producer.outputs.output import Output
    from promptmill.producer.plan import Plan

POLL_S = 0.2
ACTIONS = ("set aside", "restored", "rendered", "rebuilt", "left")


@click.command("repair")
@click.argument("run", metavar="RUN")
@click.option(
    "--accept", is_flag=True, help="Repack with images that differ when rendered again, or came after packing."
)
@click.option("--verbose", "-v", is_flag=True, help="Show the worker's log.")
@check_options
@broker_option
@json_option
def command(run: str, accept: bool, verbose: bool, broker: str | None, as_json: bool, **given: Any) -> int:
    """Restore what is broken or missing in RUN: plan, images, manifest and shards, with the bytes that they had.

    RUN is the run's folder or URL, or its name in Redis. An image comes from the shard that has it, else it is rendered
    again: by the workers of --broker, or without it by one started here; give that one the image flags of the run.
    Broken files, and files that are not the run's, are moved to set-aside/ in the run. Exit code 1: some faults remain.
    """
    check_packages()
    from promptmill.dataset.repair import repair
    from promptmill.producer.outputs.open import open_output
    from promptmill.verbs.run_output import find_any_run_output, ledger_of

    output = find_any_run_output(run, broker)
    root, _, name = output.url.rpartition("/")

    def render(plan: "Plan", indexes: Sequence[int]) -> Mapping[int, str]:
        click.echo(f"{count(len(indexes), 'image')} to render", err=True)
        if broker is not None:
            return _by_workers(plan, indexes, open_output(root), name, broker)
        return _here(plan, indexes, open_output(root), name, check_environ(given), verbose)

    counts: Counter[str] = Counter()
    for step in repair(output, render, ledger=ledger_of(output, broker), accept=accept):
        counts[step.action] += 1
        where = step.name if step.index is None else f"{step.name} (index {step.index})"
        detail = f": {step.detail}" if step.detail else ""
        told = json.dumps(dataclasses.asdict(step), ensure_ascii=False)
        click.echo(told if as_json else f"{step.action}: {where}{detail}")
    done = ", ".join(f"{counts[action]} {action}" for action in ACTIONS if counts[action])
    click.echo(f"{output.url}: {done or 'all is well'}", err=True)
    return 1 if counts["left"] else 0


def _by_workers(plan: "Plan", indexes: Sequence[int], root: "Output", run: str, broker: str) -> Mapping[int, str]:
    """Rendered by the workers of a Redis, whoever they are."""
    from promptmill.producer.anew import reasons, rendered_anew
    from promptmill.verbs.runs import OVER, connected, find_run, go_on_without_redis, watching

    client = connected(broker)
    with rendered_anew(plan, indexes, output=root, run=run, client=client):
        watcher = watching(broker)
        while go_on_without_redis(lambda: find_run(watcher, run)).state not in OVER:
            time.sleep(POLL_S)
        return reasons(client, run, indexes)


def _here(
    plan: "Plan", indexes: Sequence[int], root: "Output", run: str, checks: Mapping[str, str], verbose: bool
) -> Mapping[int, str]:
    """Rendered by a Redis and a worker of this command's own."""
    from promptmill.embedded import embedded_server
    from promptmill.local_worker import LocalWorker
    from promptmill.producer.anew import reasons, rendered_anew
    from promptmill.producer.broker import connect
    from promptmill.verbs.rendering import wait
    from promptmill.verbs.runs import watching

    missing = Counter(plan.whole(job).model for job in plan.at(indexes))
    with contextlib.ExitStack() as stack:
        embedded = stack.enter_context(embedded_server())
        client = connect(embedded.url)
        stack.enter_context(rendered_anew(plan, indexes, output=root, run=run, client=client))
        worker = stack.enter_context(LocalWorker(embedded.url, verbose=verbose, embedded=embedded, environ=checks))
        wait(watching(embedded.url), run, worker, missing, waits_for_redis=False)
        return reasons(client, run, indexes)
