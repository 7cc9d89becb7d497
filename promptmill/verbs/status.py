"""`promptmill status`: runs, workers, and what waits; with --watch a live view."""

import dataclasses
import json
import time
from typing import Any

import click

from promptmill.verbs.options import broker_option, json_option
from promptmill.verbs.rates import Rates
from promptmill.verbs.runs import OVER, find_run, go_on_without_redis, run_url, watching

WATCH_EVERY_S = 2.0
SHOWN_REASONS = 10
SHOWN_INDEXES = 5
BAR_WIDTH = 50  # characters


@click.command("status")
@click.argument("run", required=False)
@broker_option
@click.option("--watch", is_flag=True, help="Show it anew every two seconds, until it is stopped.")
@click.option("--until-finished", is_flag=True, help="Watch until the runs are over.")
@json_option
def command(run: str | None, broker: str | None, watch: bool, until_finished: bool, as_json: bool) -> int:
    """Show where all runs stand, or one RUN with its failures; the workers, and what waits.

    Exit code 1: the RUN is over, with failed jobs.
    """
    client, rates, watch = watching(broker), Rates(), watch or until_finished
    data = collect(client, run)
    while True:
        for one in data["runs"]:
            rate = rates.look(one["run"], one["done"], time.monotonic())
            if watch:
                _bring_up_to_date(one, rate)
        if watch and not as_json:
            click.clear()
        click.echo(json.dumps(data, ensure_ascii=False) if as_json else table(data, bars=watch))
        if not watch or (until_finished and all(one["state"] in OVER for one in data["runs"])):
            break
        time.sleep(WATCH_EVERY_S)
        data = go_on_without_redis(lambda: collect(client, run))
    return int(run is not None and data["runs"][0]["state"] in OVER and data["runs"][0]["failed"] > 0)


def collect(client: Any, run: str | None) -> dict[str, Any]:
    """Everything that `status` shows, as JSON values. Raises LedgerError for an unknown run."""
    from promptmill.producer.queue.ledger import Ledger
    from promptmill.producer.queue.malformed import Malformed
    from promptmill.producer.queue.queue import JobQueue
    from promptmill.producer.queue.workers import Workers

    ledger = Ledger(client)
    runs = []
    for status in [find_run(client, run)] if run else ledger.runs():
        figures = {"left": status.left, "finished": status.finished}
        rates = {"images_per_s": status.images_per_s, "eta_s": status.eta_s if status.state == "running" else None}
        runs.append({**dataclasses.asdict(status), "output": run_url(status), **figures, **rates})
    if run:
        failures = sorted(ledger.failures(run), key=lambda failure: failure.index)
        runs[0]["failures"] = [dataclasses.asdict(failure) for failure in failures]
        runs[0]["failures_by_reason"] = ledger.failures_by_reason(run)
    backlog, malformed = JobQueue(client).backlog(), Malformed(client)
    return {
        "runs": runs,
        "workers": [dataclasses.asdict(report) for report in Workers(client).alive()],
        "malformed": {"count": malformed.count(), "last": malformed.last()},
        "queue": [{"shape": s.key, "waiting": waiting, "held": held} for s, (waiting, held) in backlog.items()],
    }


def _bring_up_to_date(run: dict[str, Any], rate: float | None) -> None:
    """While one watches, the rate is that of the last minute, none while it stands still; the time left follows."""
    run["images_per_s"] = rate
    run["eta_s"] = run["left"] / rate if rate and run["state"] == "running" else None


def table(data: dict[str, Any], bars: bool = False) -> str:
    """The same for a person."""
    lines = [line for run in data["runs"] for line in [_run(run), *([_bar(run)] if bars else []), *_failures(run)]]
    lines += [] if data["runs"] else ["no runs"]
    for queue in data["queue"]:
        lines.append(f"queue {queue['shape']}: {queue['waiting']} waiting, {queue['held']} with workers")
    for worker in data["workers"]:
        lines.append(_worker(worker))
        lines += [f"  {what}: {why}" for what, why in worker["problems"].items()]
    if malformed := data["malformed"]["count"]:
        last = data["malformed"]["last"][0]
        lines.append(
            f"entries set aside that nobody can read: {malformed}; the last of {last['run']}: {last['reason']}"
        )
    lines += [] if data["workers"] else ["no workers; start one with `promptmill worker`"]
    if len(data["workers"]) > 1:
        lines.append(f"{len(data['workers'])} workers: {_rate(sum(one['images_per_s'] for one in data['workers']))}")
    return "\n".join(lines)


def _run(run: dict[str, Any]) -> str:
    usual = {"state": ("running", "finished"), "priority": ("normal",)}  # not worth a word
    words = ", ".join(run[name] for name, values in usual.items() if run[name] not in values)
    state = f" ({words})" if words else ""
    failed = f", {run['failed']} failed" if run["failed"] else ""
    rate = f", {_rate(run['images_per_s'])}" if run["images_per_s"] else ""
    eta = f", {duration(run['eta_s'])} left" if run["eta_s"] and run["state"] == "running" else ""
    return f"{run['run']}{state}: {run['done']} of {run['images']} images{failed}{rate}{eta}  {run['output']}"


def _bar(run: dict[str, Any]) -> str:
    share = (run["done"] + run["failed"]) / max(run["images"], 1)
    return f"  [{'#' * int(share * BAR_WIDTH):.<{BAR_WIDTH}}] {share:4.0%}"


def _failures(run: dict[str, Any]) -> list[str]:
    """The most frequent reasons, each with how often and where."""
    indexes: dict[str, list[int]] = {}
    for failure in run.get("failures", []):
        indexes.setdefault(failure["reason"], []).append(failure["index"])
    by_reason = sorted(indexes.items(), key=lambda item: (-len(item[1]), item[1]))
    more = len(by_reason) - SHOWN_REASONS
    lines = [f"  {len(at)} failed: {reason} ({_indexes(at)})" for reason, at in by_reason[:SHOWN_REASONS]]
    return [*lines, *([f"  ... and {more} more reasons: --json lists them all"] if more > 0 else [])]


def _indexes(indexes: list[int]) -> str:
    shown = ", ".join(map(str, indexes[:SHOWN_INDEXES]))
    return f"{'index' if len(indexes) == 1 else 'indexes'} {shown}{', ...' if len(indexes) > SHOWN_INDEXES else ''}"


def _worker(worker: dict[str, Any]) -> str:
    devices = f"{worker['devices']} {worker['platform']}" if worker["devices"] else "no devices yet"
    images = f", {worker['images']} so far" if worker["images"] else ""
    shape = f", {worker['shape']}" if worker["shape"] else ""
    return f"worker {worker['name']}: {worker['state']}, {devices}, {_rate(worker['images_per_s'])}{images}{shape}"


def _rate(images_per_s: float) -> str:
    return f"{images_per_s:.2f} images/s"


def duration(seconds: float) -> str:
    """`0:07`, `1:02:03`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
