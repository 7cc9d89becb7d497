"""Each container's very command, with the variables that a cluster would give it: probed as the kubelet probes."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests import farm
from tests.deploy.clusters import OVERLAYS, container, environment, expanded, resource
from tests.fake_gcs import free_port
from tests.farm import server_program, wait_until

OVERLAY = "cpu"
SECRETS = {"promptmill-redis": "s3cret"}
BROKER = "redis://:s3cret@redis:6379/0"

Process = subprocess.Popen[bytes]


def command(name: str, variables: dict[str, str]) -> list[str]:
    """The container's command and arguments; ours as this Python has it."""
    one = container(OVERLAY, name)
    (program,) = one["command"]
    found = {"redis-server": server_program(), "promptmill": str(Path(sys.executable).parent / "promptmill")}[program]
    return [found, *(expanded(argument, variables) for argument in one["args"])]


@contextlib.contextmanager
def running(words: list[str], folder: Path, variables: dict[str, str]) -> Iterator[Process]:
    with (folder / f"{Path(words[0]).name if words[1].startswith('-') else words[1]}.log").open("wb") as log:
        env = {**os.environ, "XLA_FLAGS": "", **variables}
        with farm.running(words, stdout=log, stderr=log, env=env, cwd=folder) as process:
            yield process


@pytest.fixture
def in_cluster(tmp_path: Path) -> Iterator[str]:
    """The redis container's command, on a port and a folder of the test's own: its URL."""
    variables = environment(OVERLAY, "redis", SECRETS)
    words = command("redis", variables)
    (service,) = resource(OVERLAY, "Service", "redis")["spec"]["ports"]
    assert BROKER.endswith(f"redis:{service['port']}/0")
    port = free_port()
    elsewhere = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path)]
    with running([*words, *elsewhere], tmp_path, variables) as process:
        url = f"redis://:s3cret@127.0.0.1:{port}/0"

        def answers() -> bool:
            assert process.poll() is None, "Redis has ended"
            with contextlib.suppress(redis.ConnectionError):
                return bool(redis.Redis.from_url(url).ping())
            return False

        wait_until(answers, "Redis answers")
        yield url


def probed(name: str, probe: str, process: Process, port: int) -> int:
    """The status that the kubelet's probe would have; 0 while nobody listens."""
    assert process.poll() is None, f"{name} has ended"
    path = container(OVERLAY, name)[probe]["httpGet"]["path"]
    try:
        return int(urllib.request.urlopen(f"http://127.0.0.1:{port}{path}").status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def test_redis_wants_its_password_and_keeps_all_on_disk(in_cluster: str) -> None:
    with pytest.raises(redis.AuthenticationError):
        redis.Redis.from_url(in_cluster.replace(":s3cret@", "")).ping()
    config: Any = redis.Redis.from_url(in_cluster, decode_responses=True).config_get("*")
    expected = {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction"}
    assert {name: config[name] for name in expected} == expected
    assert int(config["maxmemory"]) == 3 * 1024**3


def test_the_probe_of_redis_tells_a_wrong_password_from_a_right_one(in_cluster: str) -> None:
    if shutil.which("redis-cli") is None:
        pytest.skip("no redis-cli here")
    (shell, flag, script) = container(OVERLAY, "redis")["readinessProbe"]["exec"]["command"]
    port = in_cluster.rpartition(":")[2].partition("/")[0]
    there = script.replace("redis-cli", f"redis-cli -p {port}")
    for password, code in (("s3cret", 0), ("wrong", 1)):
        ran = subprocess.run([shell, flag, there], env={**os.environ, "REDIS_PASSWORD": password}, capture_output=True)
        assert ran.returncode == code, password


@pytest.mark.slow
def test_the_exporter_answers_its_probe(in_cluster: str, tmp_path: Path) -> None:
    variables = environment(OVERLAY, "exporter", SECRETS)
    assert variables["PROMPTMILL_BROKER"] == BROKER
    words, port = command("exporter", variables), free_port()
    (told,) = container(OVERLAY, "exporter")["ports"]
    assert words[-1] == str(told["containerPort"])
    with running([*words[:-1], str(port)], tmp_path, {**variables, "PROMPTMILL_BROKER": in_cluster}) as process:
        wait_until(lambda: probed("exporter", "readinessProbe", process, port) == 200, "it is ready")
        answer = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
        assert "promptmill_redis_up 1.0" in answer


@pytest.mark.slow
def test_the_worker_passes_its_probes_and_ends_when_it_is_told_to(in_cluster: str, tmp_path: Path) -> None:
    variables = environment(OVERLAY, "worker", SECRETS)
    assert variables["PROMPTMILL_BROKER"] == BROKER
    (told,) = container(OVERLAY, "worker")["ports"]
    assert variables["PROMPTMILL_METRICS_PORT"] == str(told["containerPort"])
    port = free_port()
    elsewhere = {
        "PROMPTMILL_BROKER": in_cluster,
        "PROMPTMILL_METRICS_PORT": str(port),
        "PROMPTMILL_MODEL": "tiny-random",
    }
    with running(command("worker", variables), tmp_path, {**variables, **elsewhere}) as process:
        wait_until(lambda: probed("worker", "startupProbe", process, port) == 200, "it has started")
        wait_until(lambda: probed("worker", "readinessProbe", process, port) == 200, "it is ready")
        assert probed("worker", "livenessProbe", process, port) == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0, (tmp_path / "worker.log").read_text()


@pytest.mark.parametrize("overlay", [name for name in OVERLAYS if name != OVERLAY])
def test_the_other_overlays_have_the_same_commands(overlay: str) -> None:
    for name in ("redis", "exporter", "worker"):
        for key in ("command", "args"):
            assert container(overlay, name)[key] == container(OVERLAY, name)[key], (name, key)
