"""`--traces`: each job as an OpenTelemetry trace, from its entry into the queue to its object, sent over OTLP/HTTP.

    render                     the whole, from when it was entered; ends with the image's address or the reason
      queued                   until this worker claimed it
      held                     until its batch went to the device
      rendered                 until its file was in the output: the device, the checks, encoding, uploading
      settled                  until Redis knew

The trace's id is the job's id: whoever has an image finds its trace. Where to send them, how many and with which
headers say OpenTelemetry's own variables (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER, ...).
"""

import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

from celery import Celery

from promptmill.producer.errors import PromptmillError
from promptmill.producer.queue.queue import Claim
from promptmill.worker.observers import Observer

logger = logging.getLogger(__name__)

CLOSE_S = 5.0
"""For what is not sent yet, when the worker stops: less than what a container has to end in."""
TOLD_EVERY_S = 300.0
"""OpenTelemetry tells of each try of each batch of spans."""

STEPS = (("queued", "received"), ("held", "started"), ("rendered", "wrote"), ("settled", "ended"))
"""Spans within a job's own, each from the end of the one before, and the moment that ends it."""

NANOSECONDS = 1_000_000_000


def traces_of(app: Celery, hostname: str) -> Observer | None:
    """The traces of this worker, where its settings want them. Raises PromptmillError."""
    if not app.conf.promptmill.traces:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise PromptmillError(
            "--traces: OpenTelemetry is not installed here: pip install 'promptmill[traces]'"
        ) from error
    theirs = logging.getLogger("opentelemetry")
    theirs.handlers, theirs.propagate = [_Seldom(logging.WARNING)], False
    return Traces(OTLPSpanExporter(), hostname)


class _Seldom(logging.Handler):
    """Passes on that spans are lost, once in a while."""

    _silent_until = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        if time.monotonic() >= self._silent_until:
            self._silent_until = time.monotonic() + TOLD_EVERY_S
            logger.warning("traces are lost: %s", record.getMessage())


class Traces(Observer):
    """Makes a job's spans when it ends, of the times that were told before. Thread-safe."""

    def __init__(self, exporter: Any, hostname: str) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        self._ids = _job_ids()
        resource = Resource.create({"service.name": "promptmill", "service.instance.id": hostname})
        self._provider = TracerProvider(resource=resource, id_generator=self._ids, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("promptmill")
        self._lock = threading.Lock()
        self._moments: dict[tuple[str, int], dict[str, int]] = {}

    def received(self, claim: Claim) -> None:
        self._note(claim, "received")

    def started(self, claim: Claim) -> None:
        self._note(claim, "started")

    def wrote(self, claim: Claim, size: int) -> None:
        self._note(claim, "wrote")

    def succeeded(self, claim: Claim, url: str, runtime_s: float) -> None:
        self._end(claim, "succeeded", url=url)

    def failed(self, claim: Claim, reason: str) -> None:
        self._end(claim, "failed", reason=reason)

    def revoked(self, claim: Claim) -> None:
        self._end(claim, "revoked")

    def retried(self, claim: Claim, reason: str) -> None:
        self._end(claim, "retried", reason=reason)

    def lost(self, claims: Sequence[Claim]) -> None:
        for claim in claims:
            self._end(claim, "lost")

    def close(self) -> None:
        """Send what is left. The SDK tries for half a minute where nobody listens."""
        sender = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        sender.start()
        sender.join(CLOSE_S)

    def _note(self, claim: Claim, moment: str) -> None:
        with self._lock:
            self._moments.setdefault((claim.run, claim.index), {})[moment] = time.time_ns()

    def _end(self, claim: Claim, outcome: str, **more: str) -> None:
        from opentelemetry import trace

        attributes: dict[str, Any] = {
            "promptmill.run": claim.run,
            "promptmill.index": claim.index,
            "promptmill.shape": claim.shape.key,
            "promptmill.deliveries": claim.deliveries,
            "promptmill.outcome": outcome,
            **{f"promptmill.{name}": value for name, value in more.items()},
        }
        with self._lock:
            moments = self._moments.pop((claim.run, claim.index), {}) | {"ended": time.time_ns()}
            began = round(claim.entered_s * NANOSECONDS)
            self._ids.trace_id = int(claim.job.id, 16)
            root = self._tracer.start_span("render", start_time=began, attributes=attributes)
            inside = trace.set_span_in_context(root)
            for name, moment in STEPS:
                if moment in moments:
                    self._tracer.start_span(name, inside, start_time=began).end(moments[moment])
                    began = moments[moment]
        if outcome == "failed":
            root.set_status(trace.StatusCode.ERROR, more["reason"])
        root.end(moments["ended"])


def _job_ids() -> Any:
    """Ids for the SDK: a trace's is `trace_id`, the job's."""
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class JobIds(RandomIdGenerator):
        trace_id = 0

        def generate_trace_id(self) -> int:
            return self.trace_id

        def is_trace_id_random(self) -> bool:
            return False

    return JobIds()
