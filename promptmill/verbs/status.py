"""`promptmill status`: runs, workers, and what waits; with --watch a live view."""

import dataclasses
import json
import time
from typing import TYPE_CHECKING, Any

import click

from promptmill.producer.words import count, printable
from promptmill.verbs.failures import FailedJob, Planned, by_reason, failed_jobs, shown_of
from promptmill.verbs.options import broker_option, json_option
from promptmill.verbs.rates import Rates, duration
from promptmill.verbs.runs import OVER, find_run, go_on_without_redis, name_in_redis, run_url, watching
from promptmill.verbs.waiting import lines as waiting_lines
from promptmill.verbs.waiting import queues

if TYPE_CHECKING:
    from promptmill.producer.queue.ledger import RunStatus

WATCH_EVERY_S = 2.0
BAR_WIDTH = 50  # characters


@click.command("status")
@click.argument("run", required=False)
@broker_option
@click.option("--watch", is_flag=True, help="Refresh every two seconds, until Ctrl-C.")
@click.option("--until-finished", is_flag=True, help="Watch until the runs are over.")
@json_option
def command(run: str | None, broker: str | None, watch: bool, until_finished: bool, as_json: bool) -> int:
    """Show the progress of all runs, or of one RUN with its failures; the workers, and what waits in the queue.

    Exit code 1: the RUN is over, with failed jobs.
    """
    client, rates, watch = watching(broker), Rates(), watch or until_finished
    run = name_in_redis(run, broker) if run else None
    failures = Failures(client, whole=as_json)
    data = collect(client, run, failures)
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
        data = go_on_without_redis(lambda: collect(client, run, failures))
    return int(run is not None and data["runs"][0]["state"] in OVER and data["runs"][0]["failed"] > 0)


class Failures:
    """A run's failures with their jobs; unless the `whole` is wanted, only those that a person is shown have them."""

    def __init__(self, client: Any, *, whole: bool) -> None:
        self._client = client
        self._whole = whole
        self._plans: dict[str, Planned] = {}

    def of(self, status: "RunStatus") -> list[FailedJob]:
        from promptmill.producer.queue.ledger import Ledger

        failures = list(Ledger(self._client).failures(status.run))
        wanted = {failure.index for failure in failures} if self._whole else shown_of(failures)
        plan = self._plans.setdefault(url := run_url(status), Planned(url))
        return failed_jobs(failures, plan.at(wanted))


def collect(client: Any, run: str | None, failures: Failures) -> dict[str, Any]:
    """Everything that `status` shows, as JSON values. Raises LedgerError for an unknown run."""
    from promptmill.producer.queue.ledger import Ledger
    from promptmill.producer.queue.malformed import Malformed
    from promptmill.producer.queue.workers import Workers

    ledger = Ledger(client)
    runs = []
    statuses = [find_run(client, run)] if run else list(ledger.runs())
    for status in statuses:
        figures = {"left": status.left, "finished": status.finished}
        rates = {"images_per_s": status.images_per_s, "eta_s": status.eta_s if status.state == "running" else None}
        runs.append({**dataclasses.asdict(status), "output": run_url(status), **figures, **rates})
    if run:
        runs[0]["failures"] = failures.of(statuses[0])
        runs[0]["failures_by_reason"] = ledger.failures_by_reason(run)
    workers, malformed = Workers(client).alive(), Malformed(client)
    return {
        "runs": runs,
        "workers": [dataclasses.asdict(report) for report in workers],
        "malformed": {"count": malformed.count(), "last": malformed.last()},
        "queue": queues(client, workers),
    }


def _bring_up_to_date(run: dict[str, Any], rate: float | None) -> None:
    """While one watches, the rate is that of the last minute, none while it stands still; the time left follows."""
    run["images_per_s"] = rate
    run["eta_s"] = run["left"] / rate if rate and run["state"] == "running" else None


def table(data: dict[str, Any], bars: bool = False) -> str:
    """The same for a person."""
    lines = list[str]()
    for run in data["runs"]:
        lines += [_run(run), *([_bar(run)] if bars else []), *by_reason(run.get("failures", []))]
    lines += [] if data["runs"] else ["no runs"]
    for queue in data["queue"]:
        lines += waiting_lines(queue)
    for worker in data["workers"]:
        lines.append(_worker(worker))
        lines += [f"  {what}: {why}" for what, why in worker["problems"].items()]
    if malformed := data["malformed"]["count"]:
        last = [f"; the last of {one['run']}: {one['reason']}" for one in data["malformed"]["last"][:1]]
        lines.append(f"entries set aside that nobody can read: {malformed}{''.join(last)}")
    lines += [] if data["workers"] else ["no workers; start one with `promptmill worker`"]
    if (number := len(data["workers"])) > 1:
        lines.append(f"{count(number, 'worker')}: {_rate(sum(one['images_per_s'] for one in data['workers']))}")
    return "\n".join(map(printable, lines))  # what stands in a Redis may move a terminal's cursor


def _run(run: dict[str, Any]) -> str:
    usual = {"state": ("running", "finished"), "priority": ("normal",)}  # not worth a word
    words = ", ".join(run[name] for name, values in usual.items() if run[name] not in values)
    state = f" ({words})" if words else ""
    failed = f", {run['failed']} failed" if run["failed"] else ""
    rate = f", {_rate(run['images_per_s'])}" if run["images_per_s"] else ""
    eta = f", {duration(run['eta_s'])} left" if run["eta_s"] and run["state"] == "running" else ""
    return f"{run['run']}{state}: {run['done']} of {count(run['images'], 'image')}{failed}{rate}{eta}  {run['output']}"


def _bar(run: dict[str, Any]) -> str:
    share = (run["done"] + run["failed"]) / max(run["images"], 1)
    return f"  [{'#' * int(share * BAR_WIDTH):.<{BAR_WIDTH}}] {share:4.0%}"


def _worker(worker: dict[str, Any]) -> str:
    devices = f"{worker['devices']} {worker['platform']}" if worker["devices"] else "no devices yet"
    images = f", {worker['images']} so far" if worker["images"] else ""
    shape = f", {worker['shape']}" if worker["shape"] else ""
    return f"worker {worker['name']}: {worker['state']}, {devices}, {_rate(worker['images_per_s'])}{images}{shape}"


def _rate(images_per_s: float) -> str:
    return f"{images_per_s:.2f} images/s"
