"""`--traces`: what a collector of OpenTelemetry receives of a job, over a real connection."""

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from promptmill.producer.job import Job
from promptmill.producer.queue.queue import Claim
from promptmill.worker import traces as traces_module
from promptmill.worker.observers import Observer
from promptmill.worker.settings import WorkerSettings
from promptmill.worker.traces import traces_of
from tests.farm import wait_until

JOB = Job(prompt="a red apple", width=64, height=64)


def entered() -> Claim:
    return Claim(f"{int(time.time() * 1000) - 2000}-0", JOB.shape, "r", 3, 1, JOB, "out")


class Collector(HTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[ExportTraceServiceRequest] = []

    def spans(self) -> dict[str, Span]:
        found = [
            span for one in self.requests for of in one.resource_spans for in_ in of.scope_spans for span in in_.spans
        ]
        return {span.name: span for span in found}


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        collector: Any = self.server
        data = self.rfile.read(int(self.headers["Content-Length"]))
        collector.requests.append(ExportTraceServiceRequest.FromString(data))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args: Any) -> None: ...


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    server = Collector()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    server.server_close()


def made() -> Observer:
    app: Any = SimpleNamespace(conf=SimpleNamespace(promptmill=WorkerSettings(traces=True)))
    found = traces_of(app, "worker@here")
    assert found is not None
    return found


@pytest.fixture
def traces(collector: Collector) -> Observer:
    return made()


def attributes(span: Span) -> dict[str, str]:
    return {one.key: one.value.string_value or str(one.value.int_value) for one in span.attributes}


def test_a_job_is_one_trace_from_its_entry_to_its_object(traces: Observer, collector: Collector) -> None:
    claim = entered()
    traces.received(claim)
    traces.started(claim)
    traces.wrote(claim, 1000)
    traces.succeeded(claim, "out/r/images/1.png", 0.5)
    traces.close()
    spans = collector.spans()
    assert set(spans) == {"render", "queued", "held", "rendered", "settled"}
    assert {span.trace_id.hex() for span in spans.values()} == {JOB.id}
    whole = spans["render"]
    assert {span.parent_span_id for name, span in spans.items() if name != "render"} == {whole.span_id}
    steps = [spans[name] for name in ("queued", "held", "rendered", "settled")]
    assert [step.start_time_unix_nano for step in steps[1:]] == [step.end_time_unix_nano for step in steps[:-1]]
    assert whole.start_time_unix_nano == steps[0].start_time_unix_nano == round(claim.entered_s * 1e9)
    assert whole.end_time_unix_nano == steps[-1].end_time_unix_nano
    told = attributes(whole)
    assert (told["promptmill.run"], told["promptmill.index"], told["promptmill.outcome"]) == ("r", "3", "succeeded")
    assert told["promptmill.url"] == "out/r/images/1.png"
    resource = collector.requests[0].resource_spans[0].resource
    assert {one.key: one.value.string_value for one in resource.attributes}["service.instance.id"] == "worker@here"


def test_a_failed_job_says_why(traces: Observer, collector: Collector) -> None:
    claim = replace(entered(), deliveries=2)
    traces.received(claim)
    traces.failed(claim, "out of memory")
    traces.close()
    spans = collector.spans()
    assert set(spans) == {"render", "queued", "settled"}
    assert (spans["render"].status.code, spans["render"].status.message) == (Status.STATUS_CODE_ERROR, "out of memory")
    assert attributes(spans["render"])["promptmill.deliveries"] == "2"


def test_nothing_is_kept_of_what_was_lost(traces: Any, collector: Collector) -> None:
    claim = entered()
    traces.received(claim)
    traces.lost([claim])
    assert traces._moments == {}
    traces.close()
    assert attributes(collector.spans()["render"])["promptmill.outcome"] == "lost"


def test_no_traces_where_nobody_asked_for_them() -> None:
    app: Any = SimpleNamespace(conf=SimpleNamespace(promptmill=WorkerSettings()))
    assert traces_of(app, "worker@here") is None


@pytest.mark.parametrize("listens", [False, True], ids=["nobody there", "hangs"])
def test_a_collector_that_is_away_holds_up_nobody_and_is_told_of_once(monkeypatch, caplog, listens: bool) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    monkeypatch.setattr(traces_module, "CLOSE_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
        if not listens:
            server.close()
        traces = made()
        began = time.monotonic()
        for index in range(3000):  # more than OpenTelemetry keeps
            traces.received(replace(entered(), index=index))
            traces.failed(replace(entered(), index=index), "no")
        assert time.monotonic() - began < 5
        wait_until(lambda: "traces are lost" in caplog.text, "the loss is told", 20)
        began = time.monotonic()
        traces.close()
        assert time.monotonic() - began < 3
    assert len(caplog.records) == 1
