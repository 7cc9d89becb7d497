"""What this worker does, as Prometheus' metrics. What Redis knows of all workers: `promptmill exporter`."""

from collections.abc import Iterator, Sequence
from typing import Any

from celery import Celery

from promptmill.producer.errors import PromptmillError
from promptmill.producer.job import Shape
from promptmill.producer.queue.queue import Claim
from promptmill.worker.observers import STAGES, Observer

SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)


def metrics_of(app: Celery, hostname: str) -> Observer | None:
    """The metrics of this worker, where its settings want them. Raises PromptmillError."""
    if app.conf.promptmill.metrics_port is None:
        return None
    try:
        import prometheus_client  # noqa: F401
    except ImportError as error:
        raise PromptmillError(
            "--metrics-port: prometheus-client is not installed here: pip install 'promptmill[metrics]'"
        ) from error
    return Metrics()


class Metrics(Observer):
    """Counts what it hears, into a registry of its own."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector

        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        registry.register(DeviceMemory())
        self._jobs = Counter(
            "promptmill_jobs", "Jobs that ended here, by what became of them.", ["result"], registry=registry
        )
        for result in ("succeeded", "failed", "revoked", "retried"):
            self._jobs.labels(result)
        self._runtime = Histogram(
            "promptmill_job_seconds",
            "From the start of a job's batch until its image is safe.",
            buckets=SECONDS,
            registry=registry,
        )
        self._stages = Histogram(
            "promptmill_stage_seconds", "Of each stage, per call.", ["stage"], buckets=SECONDS, registry=registry
        )
        self._stage_jobs = Counter("promptmill_stage_jobs", "Jobs that took the stage.", ["stage"], registry=registry)
        for stage in STAGES:
            self._stages.labels(stage)
            self._stage_jobs.labels(stage)
        self._busy = Counter(
            "promptmill_device_busy_seconds", "In which a batch was on the devices.", registry=registry
        )
        self._batches = Counter("promptmill_batches", "Batches that the devices rendered.", registry=registry)
        self._batch_jobs = Counter("promptmill_batch_jobs", "Jobs in those batches.", registry=registry)
        self._batch_slots = Counter("promptmill_batch_slots", "Jobs that they could have held.", registry=registry)
        self._bare = Gauge(
            "promptmill_bare_images_per_second",
            "What the program alone would render: its slots over the shortest time of a batch.",
            ["shape"],
            registry=registry,
        )
        self._compilations = Counter("promptmill_compilations", "Programs that were made.", registry=registry)
        self._compile_s = Counter(
            "promptmill_compile_seconds", "Of loading, compiling and warming up.", registry=registry
        )
        self._bytes = Counter("promptmill_output_bytes", "Of images that were uploaded.", registry=registry)
        self._lost = Counter("promptmill_leases_lost", "Jobs that another worker has by now.", registry=registry)
        self._fastest: dict[str, float] = {}

    def succeeded(self, claim: Claim, url: str, runtime_s: float) -> None:
        self._jobs.labels("succeeded").inc()
        self._runtime.observe(runtime_s)

    def failed(self, claim: Claim, reason: str) -> None:
        self._jobs.labels("failed").inc()

    def revoked(self, claim: Claim) -> None:
        self._jobs.labels("revoked").inc()

    def retried(self, claim: Claim, reason: str) -> None:
        self._jobs.labels("retried").inc()

    def spent(self, stage: str, seconds: float, jobs: int = 1) -> None:
        self._stages.labels(stage).observe(seconds)
        self._stage_jobs.labels(stage).inc(jobs)

    def batched(self, shape: Shape, jobs: int, slots: int, busy_s: float) -> None:
        self._busy.inc(busy_s)
        self._batches.inc()
        self._batch_jobs.inc(jobs)
        self._batch_slots.inc(slots)
        rate = slots / busy_s if busy_s > 0 else 0.0
        if rate > self._fastest.get(shape.key, 0.0):
            self._fastest[shape.key] = rate
            self._bare.labels(shape.key).set(rate)

    def compiled(self, shape: Shape, seconds: float) -> None:
        self._compilations.inc()
        self._compile_s.inc(seconds)

    def wrote(self, claim: Claim, size: int) -> None:
        self._bytes.inc(size)

    def lost(self, claims: Sequence[Claim]) -> None:
        self._lost.inc(len(claims))


class DeviceMemory:
    """Memory of each device, read at each scrape; a CPU says nothing of it."""

    def collect(self) -> Iterator[Any]:
        import jax
        from prometheus_client.core import GaugeMetricFamily

        family = GaugeMetricFamily(
            "promptmill_device_memory_bytes",
            "Of a device: in use, peak and limit.",
            labels=["device", "memory"],
        )
        names = {"bytes_in_use": "used", "peak_bytes_in_use": "peak", "bytes_limit": "limit"}
        for device in jax.local_devices():
            stats = device.memory_stats() or {}
            for name, shown in names.items():
                if name in stats:
                    family.add_metric([str(device.id), shown], stats[name])
        yield family
