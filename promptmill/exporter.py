"""What a Redis knows of runs, queues and workers, as Prometheus' metrics: read anew at each scrape, nothing is kept."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import redis
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from promptmill.producer.broker import connect
from promptmill.producer.errors import BrokerError
from promptmill.producer.queue.keys import GROUP, queue_key, shapes_key
from promptmill.producer.queue.ledger import Ledger, RunStatus
from promptmill.producer.queue.malformed import Malformed
from promptmill.producer.queue.queue import JobQueue
from promptmill.producer.queue.workers import Workers

TIMEOUT_S = 1.5  # for an answer, four times: less than Prometheus' own of 10 s
REASONS_SHOWN = 20
REASON_LENGTH = 80  # characters; a label is kept for ever
OTHER_REASONS = "others"

STATES = ("starting", "compiling", "ready", "rendering", "paused", "draining")


class Farm(Collector):
    """The metrics of one Redis. One that does not answer is `promptmill_redis_up 0`, and no error."""

    def __init__(self, broker: str) -> None:
        self._broker = broker
        self._reasons: dict[str, tuple[int, dict[str, int]]] = {}  # by run: of how many failures, and how often each

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("promptmill_redis_up", "Whether the Redis answered this scrape.")
        try:
            with contextlib.closing(connect(self._broker, timeout_s=TIMEOUT_S)) as client:
                found = list(self._metrics(client))
        except (BrokerError, redis.RedisError):
            found = []
        up.add_metric([], float(bool(found)))
        yield up
        yield from found

    def _metrics(self, client: redis.Redis) -> Iterator[Metric]:
        ledger = Ledger(client)
        runs = list(ledger.runs())
        yield from _of_runs(runs)
        yield _failures({run.run: self._failures_by_reason(ledger, run) for run in runs if run.failed})
        yield _queue(client, runs)
        yield from _of_workers(client)
        malformed = CounterMetricFamily("promptmill_malformed_entries", "Entries set aside that nobody could read.")
        malformed.add_metric([], Malformed(client).count())
        yield malformed

    def _failures_by_reason(self, ledger: Ledger, run: RunStatus) -> dict[str, int]:
        """Read anew where there are more or fewer of them: a run may have a million."""
        failed, reasons = self._reasons.get(run.run, (0, {}))
        if failed != run.failed:
            reasons = ledger.failures_by_reason(run.run)
            self._reasons[run.run] = run.failed, reasons
        return reasons


def registry_of(broker: str) -> CollectorRegistry:
    """A registry with the metrics of that Redis alone."""
    registry = CollectorRegistry()
    registry.register(Farm(broker))
    return registry


def _of_runs(runs: list[RunStatus]) -> Iterator[Metric]:
    labels = ["run", "state", "priority"]
    images = GaugeMetricFamily(
        "promptmill_run_images", "Images of a run, by what has become of them.", labels=[*labels, "image"]
    )
    created = GaugeMetricFamily("promptmill_run_created_timestamp_seconds", "When a run was entered.", labels=labels)
    last = GaugeMetricFamily(
        "promptmill_run_last_image_timestamp_seconds", "When a run's last image landed.", labels=labels
    )
    rate = GaugeMetricFamily("promptmill_run_images_per_second", "A run's rate while it was not paused.", labels=labels)
    eta = GaugeMetricFamily("promptmill_run_eta_seconds", "Until a run is finished, at its rate.", labels=labels)
    for run in runs:
        of_run = [run.run, run.state, run.priority]
        counts = {"done": run.done, "failed": run.failed, "cancelled": run.cancelled, "left": run.left}
        for what, number in counts.items():
            images.add_metric([*of_run, what], number)
        created.add_metric(of_run, run.created)
        known = ((last, run.last_done), (rate, run.images_per_s), (eta, run.eta_s if run.state == "running" else None))
        for family, value in known:
            if value is not None:
                family.add_metric(of_run, value)
    yield from (images, created, last, rate, eta)


def _failures(by_run: Mapping[str, Mapping[str, int]]) -> Metric:
    family = GaugeMetricFamily(
        "promptmill_run_failures", "Failed jobs of a run by reason, the most frequent ones.", labels=["run", "reason"]
    )
    for run, reasons in by_run.items():
        shown: Counter[str] = Counter()
        for number, (reason, count) in enumerate(reasons.items()):
            shown[reason[:REASON_LENGTH] if number < REASONS_SHOWN else OTHER_REASONS] += count
        for reason, count in shown.items():
            family.add_metric([run, reason], count)
    return family


def _queue(client: Any, runs: list[RunStatus]) -> Metric:
    """Jobs that are not settled. Of a paused run they wait as `paused`."""
    family = GaugeMetricFamily(
        "promptmill_queue_jobs",
        "Unsettled jobs: waiting for a worker, held by one, or paused.",
        labels=["shape", "priority", "state"],  # "job" is Prometheus' own
    )
    shapes = {shape.key: shape for shape in JobQueue(client).backlog()}
    found: Counter[tuple[str, str, str]] = Counter()
    for run in runs:
        for key in client.smembers(shapes_key(run.run)) & shapes.keys() if run.pending else ():
            stream = queue_key(run.run, shapes[key])
            unsettled, held = client.xlen(stream), _held(client, stream)
            waiting = "paused" if run.state == "paused" else "waiting"
            found[key, run.priority, waiting] += max(unsettled - held, 0)
            found[key, run.priority, "held"] += held
    for labels, number in sorted(found.items()):
        family.add_metric(labels, number)
    return family


def _held(client: Any, stream: str) -> int:
    try:
        return int(client.xpending(stream, GROUP)["pending"])
    except redis.ResponseError:  # no worker has looked at it yet, or it is gone
        return 0


def _of_workers(client: redis.Redis) -> Iterator[Metric]:
    reports = Workers(client).alive()
    workers = GaugeMetricFamily("promptmill_workers", "Workers that reported lately, by state.", labels=["state"])
    for state in STATES:
        workers.add_metric([state], sum(report.state == state for report in reports))
    images = CounterMetricFamily("promptmill_worker_images", "Images of a worker since its start.", labels=["worker"])
    rate = GaugeMetricFamily("promptmill_worker_images_per_second", "Over the last minute.", labels=["worker"])
    devices = GaugeMetricFamily("promptmill_worker_devices", "Its accelerators.", labels=["worker", "platform"])
    problems = GaugeMetricFamily(
        "promptmill_worker_problems", "What does not work there: models, outputs.", labels=["worker"]
    )
    for report in reports:
        images.add_metric([report.name], report.images)
        rate.add_metric([report.name], report.images_per_s)
        devices.add_metric([report.name, report.platform], report.devices)
        problems.add_metric([report.name], len(report.problems))
    yield from (workers, images, rate, devices, problems)
