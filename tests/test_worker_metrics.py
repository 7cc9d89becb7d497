"""`promptmill worker --metrics-port`: a real worker's metrics, and whether it is well and ready."""

import json
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from promptmill.producer.job import Job
from promptmill.worker.metrics import Metrics
from promptmill.worker.metrics_server import is_healthy, is_ready
from promptmill.worker.self_report import SelfReport
from tests.fake_gcs import free_port
from tests.farm import Farm, farm_of, wait_until

PAGE = Path(__file__).parents[1] / "docs" / "monitoring.md"


@pytest.fixture
def farm(client: redis.Redis, redis_url: str, tmp_path: Path) -> Iterator[Farm]:
    with farm_of(redis_url, tmp_path) as farm:
        yield farm


def get(port: int, path: str) -> tuple[int, str]:
    """Status and text; 0 while nobody listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except (urllib.error.URLError, ConnectionError):
        return 0, ""


def values(text: str) -> dict[tuple[str, ...], float]:
    """Name and the labels' values -> value; of histograms the sum and the count."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_bucket")
    }


@pytest.mark.slow
def test_a_workers_metrics_tell_what_the_ledger_tells(farm: Farm, tmp_path: Path) -> None:
    port = free_port()
    farm.environ["PROMPTMILL_METRICS_PORT"] = str(port)
    rows: list[dict[str, Any]] = [{"prompt": f"prompt {n}"} for n in range(10)]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, [*rows, {"prompt": "x", "clip_skip": 11}])))
    answer = farm.call("submit", str(tmp_path / "p.jsonl"), "--output", str(tmp_path), "--run", "r", "--steps", "2")
    assert answer.returncode == 0, answer.stderr
    worker = farm.start_worker()
    wait_until(lambda: get(port, "/readyz")[0], "somebody listens")
    wait_until(lambda: get(port, "/readyz")[0] == HTTPStatus.OK, "it is ready")
    assert get(port, "/healthz") == (HTTPStatus.OK, "ok\n")
    run = farm.wait_until_finished("r")
    assert (run["done"], run["failed"]) == (10, 1)
    wait_until(lambda: values(get(port, "/metrics")[1])["promptmill_jobs_total", "failed"] == 1, "all is counted")
    text = get(port, "/metrics")[1]
    found = values(text)
    assert found["promptmill_jobs_total", "succeeded"] == 10
    assert found["promptmill_job_seconds_count",] == 10
    batches = found["promptmill_stage_seconds_count", "device"]
    for stage in ("tokenise", "device", "fetch"):
        assert found["promptmill_stage_jobs_total", stage] == 10
        assert 0 < found["promptmill_stage_seconds_count", stage] == batches
    busy = found["promptmill_device_busy_seconds_total",]
    assert found["promptmill_stage_seconds_sum", "device"] == pytest.approx(busy)
    for stage in ("encode", "upload", "settle"):
        assert found["promptmill_stage_jobs_total", stage] == found["promptmill_stage_seconds_count", stage] == 10
    assert found["promptmill_stage_jobs_total", "claim"] == 11
    assert found["promptmill_batch_jobs_total",] == 10 <= found["promptmill_batch_slots_total",]
    assert found["promptmill_compilations_total",] > 0 and found["promptmill_compile_seconds_total",] > 0
    assert found["promptmill_device_busy_seconds_total",] > 0
    written = sum(path.stat().st_size for path in (tmp_path / "r" / "images").glob("*/*"))
    assert found["promptmill_output_bytes_total",] == written
    assert all(value > 0 for (name, *_), value in found.items() if name == "promptmill_bare_images_per_second")
    assert found["process_resident_memory_bytes",] > 1e8
    assert get(port, "/nothing")[0] == HTTPStatus.NOT_FOUND
    ours = {re.sub("_(count|sum)$", "", name) for name, *_ in found if name.startswith("promptmill_")}
    ours -= {name for name in ours if name.endswith("_created")}  # the client library's own, of each counter
    assert ours - set(re.findall(r"`(promptmill_\w+)`", PAGE.read_text())) == set(), "docs/monitoring.md has each"
    if shutil.which("promtool"):
        check = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
        assert (check.returncode, check.stdout + check.stderr) == (0, "")
    worker.terminate()
    wait_until(lambda: get(port, "/readyz")[0] in (0, HTTPStatus.SERVICE_UNAVAILABLE), "it is not ready any more")


@pytest.mark.slow
def test_a_port_that_is_taken_ends_the_worker_with_a_sentence(farm: Farm) -> None:
    port = free_port()
    farm.environ |= {"PROMPTMILL_METRICS_PORT": str(port), "PROMPTMILL_METRICS_ADDRESS": "127.0.0.1"}
    farm.start_worker()
    wait_until(lambda: get(port, "/metrics")[0] == HTTPStatus.OK, "the first one listens")
    second = farm.call("worker")
    assert second.returncode == 2 and "Traceback" not in second.stderr, second.stderr
    sentence = f"promptmill: --metrics-port: cannot listen on 127.0.0.1:{port}: Address already in use"
    assert sentence in second.stderr


def _host(report: SelfReport, fetching: Any, hang_timeout_s: float) -> Any:
    return SimpleNamespace(report=report, fetching=fetching, settings=SimpleNamespace(hang_timeout_s=hang_timeout_s))


def test_a_device_that_hangs_is_not_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    report = SelfReport("w@host", is_busy=lambda: True)
    monkeypatch.setattr("time.monotonic", lambda: 1000.0)
    assert is_healthy(_host(report, None, 600)) == (HTTPStatus.OK, "ok")
    assert is_healthy(_host(report, (object(), 701.0), 600)) == (HTTPStatus.OK, "ok")
    status, why = is_healthy(_host(report, (object(), 699.0), 600))
    assert status == HTTPStatus.SERVICE_UNAVAILABLE and why == "the device is at one batch for 301 s"
    assert is_healthy(_host(report, (object(), 0.0), 0)) == (HTTPStatus.OK, "ok"), "--hang-timeout 0 is no limit"


def test_ready_is_who_claims_jobs() -> None:
    busy = [False]
    report = SelfReport("w@host", is_busy=lambda: busy[0])
    host = _host(report, None, 0)
    assert is_ready(host) == (HTTPStatus.SERVICE_UNAVAILABLE, "starting")
    report.phase("ready")
    assert is_ready(host) == (HTTPStatus.OK, "ready")
    report.compiling("a shape")
    assert is_ready(host) == (HTTPStatus.SERVICE_UNAVAILABLE, "compiling")
    busy[0] = True
    assert is_ready(host) == (HTTPStatus.OK, "rendering")
    report.phase("draining")
    assert is_ready(host) == (HTTPStatus.SERVICE_UNAVAILABLE, "draining")


def test_the_bare_rate_is_that_of_the_fastest_batch_of_the_shape() -> None:
    metrics = Metrics()
    shape = Job(prompt="x", width=64, height=64).shape
    for busy_s in (4.0, 2.0, 3.0):
        metrics.batched(shape, 3, 8, busy_s)
    value = metrics.registry.get_sample_value
    assert value("promptmill_bare_images_per_second", {"shape": shape.key}) == 4
    assert value("promptmill_batch_jobs_total") == 9
    assert value("promptmill_batch_slots_total") == 24
    assert value("promptmill_device_busy_seconds_total") == 9
