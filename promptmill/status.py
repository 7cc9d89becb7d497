"""`promptmill status`: runs, workers, and what waits."""

import dataclasses
import json
import time
from typing import Any

import click

from promptmill.options import broker_option, json_option

SHOWN_FAILURES = 20


@click.command("status")
@click.argument("run", required=False)
@broker_option
@click.option("--watch", is_flag=True, help="Show it anew every two seconds, until the run is finished.")
@json_option
def command(run: str | None, broker: str | None, watch: bool, as_json: bool) -> int:
    """Show where all runs stand, or one RUN with its failures; the workers, and what waits.

    Exit code 1: the RUN is finished, with failed jobs.
    """
    from producer.broker import DEFAULT_URL, connect

    client = connect(broker or DEFAULT_URL)
    while True:
        data = collect(client, run)
        if watch and not as_json:
            click.clear()
        click.echo(json.dumps(data, ensure_ascii=False) if as_json else table(data))
        if not watch or all(one["finished"] for one in data["runs"]):
            break
        time.sleep(2.0)
    return int(run is not None and data["runs"][0]["finished"] and data["runs"][0]["failed"] > 0)


def collect(client: Any, run: str | None) -> dict[str, Any]:
    """Everything that `status` shows, as JSON values. Raises LedgerError for an unknown run."""
    from producer.ledger import Ledger
    from producer.queue import JobQueue
    from producer.workers import Workers

    ledger = Ledger(client)
    runs = []
    for status in [ledger.status(run)] if run else ledger.runs():
        figures = {"left": status.left, "finished": status.finished}
        rates = {"images_per_s": status.images_per_s, "eta_s": status.eta_s}
        runs.append({**dataclasses.asdict(status), **figures, **rates})
    if run:
        runs[0]["failures"] = [
            dataclasses.asdict(failure) for failure in sorted(ledger.failures(run), key=lambda f: f.index)
        ]
    backlog = JobQueue(client).backlog()
    return {
        "runs": runs,
        "workers": [dataclasses.asdict(report) for report in Workers(client).alive()],
        "queue": [{"shape": s.key, "waiting": waiting, "held": held} for s, (waiting, held) in backlog.items()],
    }


def table(data: dict[str, Any]) -> str:
    """The same for a person."""
    lines = []
    for run in data["runs"]:
        rate = f", {run['images_per_s']:.2f} images/s" if run["images_per_s"] else ""
        eta = f", {_duration(run['eta_s'])} left" if run["eta_s"] and not run["finished"] else ""
        failed = f", {run['failed']} failed" if run["failed"] else ""
        lines.append(f"{run['run']}: {run['done']} of {run['images']} images{failed}{rate}{eta}  {run['output']}")
        for failure in run.get("failures", [])[:SHOWN_FAILURES]:
            lines.append(f"  failed: place {failure['index']}: {failure['reason']}")
        more = len(run.get("failures", [])) - SHOWN_FAILURES
        lines += [f"  ... and {more} more: --json lists them all"] if more > 0 else []
    lines += [] if data["runs"] else ["no runs"]
    for queue in data["queue"]:
        lines.append(f"queue {queue['shape']}: {queue['waiting']} waiting, {queue['held']} with workers")
    for worker in data["workers"]:
        devices = f"{worker['devices']} {worker['platform']}" if worker["devices"] else "no devices yet"
        lines.append(f"worker {worker['name']}: {worker['state']}, {devices}, {worker['images_per_s']:.2f} images/s")
        lines += [f"  cannot render with {model}: {why}" for model, why in worker["problems"].items()]
    lines += [] if data["workers"] else ["no workers; start one with `promptmill worker`"]
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
