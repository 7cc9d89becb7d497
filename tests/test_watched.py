"""A farm with faults, watched by all that watch: `status --watch`, Flower, the exporter and Prometheus tell one story.

Two workers, 1,632 prompts. Some cannot be rendered, some are revoked in Flower, a worker is killed and another comes.
"""

import base64
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from tests.deploy.test_board import QUERIES
from tests.deploy.test_prometheus_end_to_end import SILENT, Prometheus, exporter, farm, prometheus_of
from tests.fake_gcs import free_port, wait_for_http
from tests.farm import Farm, running, wait_until

__all__ = ["exporter", "farm"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

JOBS, BROKEN, REVOKED = 1632, 163, 5  # a tenth: the alert of failures fires above a twentieth
RUN = "watched"
LONG_S = 600.0


class Flower:
    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, path: str, data: bytes | None = None) -> Any:
        header = {"Authorization": f"Basic {base64.b64encode(b'me:secret').decode()}"}
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/{path}", data, header)) as answer:
            return json.load(answer)

    def states(self) -> dict[str, int]:
        """How many tasks of the run are in each state."""
        tasks = self.ask(f"api/tasks?limit={2 * JOBS}&search=kwargs:run={RUN}")
        return dict(Counter(task["state"] for task in tasks.values()))


@pytest.fixture
def flower(farm: Farm) -> Iterator[Flower]:
    port = free_port()
    command = [sys.executable, "-m", "promptmill", "flower", "--address", "127.0.0.1", "--port", str(port)]
    with running([*command, "--basic-auth", "me:secret"], env=farm.environ, stderr=subprocess.DEVNULL) as process:
        wait_for_http(f"http://127.0.0.1:{port}/healthcheck", process)
        yield Flower(port)


def submitted(farm: Farm) -> list[str]:
    """Submits the run; ids of the jobs that can be rendered."""
    rows: list[dict[str, Any]] = [{"prompt": f"prompt {number}"} for number in range(JOBS)]
    for number in range(BROKEN):
        rows[number * 10 + 5]["clip_skip"] = 11
    (farm.folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    output = str(farm.folder / "out")
    asked = ("--output", output, "--run", RUN, "--steps", "1", "--guidance", "1")
    answer = farm.call("submit", str(farm.folder / "rows.jsonl"), *asked)
    assert answer.returncode == 0, answer.stderr
    listed = [json.loads(line) for line in farm.call("list", f"{output}/{RUN}", "--json").stdout.splitlines()]
    assert len(listed) == JOBS
    return [one["id"] for one, row in zip(listed, rows, strict=True) if "clip_skip" not in row]


def start_worker(farm: Farm, port: int) -> subprocess.Popen[bytes]:
    farm.environ |= {"PROMPTMILL_METRICS_PORT": str(port), "PROMPTMILL_PER_DEVICE_BATCH": "8"}
    return farm.start_worker()


def test_all_that_watch_tell_the_same(farm: Farm, exporter: int, flower: Flower, client: redis.Redis) -> None:
    ports = free_port(), free_port()
    ids = submitted(farm)
    for one in ids[-REVOKED:]:
        flower.ask(f"api/task/revoke/{one}", b"")
    watched = [sys.executable, "-m", "promptmill", "status", RUN, "--until-finished", "--json"]
    with (
        prometheus_of(farm.folder, exporter, ports) as prometheus,
        running(watched, env=farm.environ, stdout=subprocess.PIPE, text=True) as status,
    ):
        first = start_worker(farm, ports[0])
        start_worker(farm, ports[1])
        wait_until(lambda: farm.run(RUN)["done"] > JOBS / 4, "a quarter is there", LONG_S)
        answered = {query for query in QUERIES if prometheus.ask(query)}
        os.kill(first.pid, signal.SIGKILL)
        start_worker(farm, ports[0])
        run = farm.wait_until_finished(RUN, LONG_S)
        told, _ = status.communicate(timeout=60)
        assert_one_story(run, json.loads(told.splitlines()[-1])["runs"][0], flower, prometheus)
        answered |= {query for query in QUERIES if prometheus.ask(query)}
    assert {query for query in set(QUERIES) - answered if not any(name in query for name in SILENT)} == set()
    images = [path for path in (farm.folder / "out" / RUN / "images").rglob("*.png") if path.is_file()]
    assert len(images) == run["done"] == JOBS - BROKEN - REVOKED


def assert_one_story(run: dict[str, Any], last: dict[str, Any], flower: Flower, prometheus: Prometheus) -> None:
    counts = {name: run[name] for name in ("images", "done", "failed")}
    assert counts == {"images": JOBS, "done": JOBS - BROKEN - REVOKED, "failed": BROKEN + REVOKED}
    assert {name: last[name] for name in counts} == counts, "status --until-finished"
    for image in ("done", "failed", "left"):
        expected = counts.get(image, 0)
        query = f'sum(promptmill_run_images{{run="{RUN}",image="{image}"}})'
        wait_until(lambda: prometheus.value(query) == expected, f"{image} images in Prometheus")  # noqa: B023
    wait_until(
        lambda: not flower.states().keys() - {"SUCCESS", "FAILURE", "REVOKED"}, "Flower knows how each ended", 30
    )
    assert flower.states() == {"SUCCESS": run["done"], "FAILURE": BROKEN, "REVOKED": REVOKED}
    wait_until(lambda: "PromptmillFailuresRise" in prometheus.firing(), "an alert fires")
