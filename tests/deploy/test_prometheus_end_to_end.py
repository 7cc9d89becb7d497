"""A real Prometheus beside a real farm: every query of the board is answered, and an alert fires and is over."""

import contextlib
import json
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from tests.deploy.programs import MONITORING, PACKAGE, program
from tests.deploy.test_board import QUERIES
from tests.fake_gcs import free_port, wait_for_http
from tests.farm import Farm, farm_of, running, wait_until

SILENT = {"promptmill_device_memory_bytes", "promptmill_run_eta_seconds", "promptmill_run_images_per_second"}
"""What a CPU, and a run of a second, do not tell."""


@pytest.fixture
def farm(client: redis.Redis, redis_url: str, tmp_path: Path) -> Iterator[Farm]:
    with farm_of(redis_url, tmp_path) as farm:
        yield farm


@dataclass
class Prometheus:
    port: int

    def _get(self, path: str, **asked: str) -> Any:
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(asked)}"
        with urllib.request.urlopen(url) as answer:
            return json.loads(answer.read())["data"]

    def ask(self, query: str) -> list[dict[str, Any]]:
        """The series of an instant query, as Grafana asks it for all runs. HTTPError for one that is not valid."""
        asked = query.replace("$__rate_interval", "1m").replace("$run", ".*")
        return self._get("query", query=asked)["result"]

    def value(self, query: str) -> float:
        """Its one value; -1 where there is none."""
        found = self.ask(query)
        return float(found[0]["value"][1]) if found else -1

    def firing(self) -> set[str]:
        return {alert["labels"]["alertname"] for alert in self._get("alerts")["alerts"] if alert["state"] == "firing"}


def configuration(folder: Path, exporter: int, workers: Sequence[int]) -> Path:
    """Ours, with the addresses of this test, every second, and alerts that do not wait."""
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    ports = {"exporter": [exporter], "worker": workers}
    targets = {name: [f"127.0.0.1:{port}" for port in those] for name, those in ports.items()}
    config["scrape_configs"] = [
        {"job_name": one["job_name"], "static_configs": [{"targets": targets[one["job_name"]]}]}
        for one in config["scrape_configs"]
    ]
    rules = yaml.safe_load((MONITORING / "alerts.yml").read_text())
    for rule in rules["groups"][0]["rules"]:
        rule["for"] = "1s"
    (folder / "alerts.yml").write_text(yaml.safe_dump(rules))
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture
def exporter(farm: Farm) -> Iterator[int]:
    port = free_port()
    command = [sys.executable, "-m", "promptmill", "exporter", "--address", "127.0.0.1", "--port", str(port)]
    with running(command, env=farm.environ, stderr=subprocess.DEVNULL):
        yield port


@pytest.fixture
def prometheus(farm: Farm, exporter: int, tmp_path: Path) -> Iterator[Prometheus]:
    worker = free_port()
    farm.environ["PROMPTMILL_METRICS_PORT"] = str(worker)
    with prometheus_of(tmp_path, exporter, [worker]) as started:
        yield started


@contextlib.contextmanager
def prometheus_of(folder: Path, exporter: int, workers: Sequence[int]) -> Iterator[Prometheus]:
    """A real one that asks these ports."""
    port, config = free_port(), configuration(folder, exporter, workers)
    command = [program("prometheus", PACKAGE), f"--config.file={config}", f"--web.listen-address=127.0.0.1:{port}"]
    command += [f"--storage.tsdb.path={folder / 'tsdb'}", "--log.level=error"]
    with running(command, stderr=subprocess.DEVNULL) as process:
        wait_for_http(f"http://127.0.0.1:{port}/-/ready", process)
        yield Prometheus(port)


@pytest.mark.slow
def test_the_board_is_answered_and_an_alert_fires(farm: Farm, prometheus: Prometheus, tmp_path: Path) -> None:
    # Given jobs, of which one cannot be rendered, and nobody to render them
    rows = [{"prompt": f"prompt {n}"} for n in range(12)] + [{"prompt": "x", "clip_skip": 11}]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    answer = farm.call("submit", str(tmp_path / "p.jsonl"), "--output", str(tmp_path), "--run", "r", "--steps", "2")
    assert answer.returncode == 0, answer.stderr
    # Then that is told
    wait_until(lambda: {"PromptmillNothingDone", "PromptmillNoWorkers"} <= prometheus.firing(), "the alerts fire")
    assert prometheus.value('sum(promptmill_queue_jobs{state="waiting"})') == 13
    answered = {query for query in QUERIES if prometheus.ask(query)}
    # When a worker comes
    farm.start_worker()
    run = farm.wait_until_finished("r")
    # Then the alerts are over, but for the one of the failure, and Prometheus tells the counts of the ledger
    wait_until(lambda: prometheus.value('sum(promptmill_run_images{image="done"})') == 12, "it tells all images")
    for what in ("done", "failed", "cancelled", "left"):
        assert prometheus.value(f'sum(promptmill_run_images{{run="r",image="{what}"}})') == run.get(what, 0), what
    assert prometheus.value("sum(promptmill_run_failures)") == 1
    wait_until(lambda: prometheus.value('sum(promptmill_jobs_total{result="succeeded"})') == 12, "so does the worker")
    wait_until(lambda: prometheus.firing() == {"PromptmillFailuresRise"}, "one alert is left")
    # And each query of the board has an answer
    answered |= {query for query in QUERIES if prometheus.ask(query)}
    assert {query for query in set(QUERIES) - answered if not any(name in query for name in SILENT)} == set()
    assert prometheus.value("min(up)") == 1
