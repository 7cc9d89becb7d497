"""docker-compose.yml and the Dockerfile, where no Docker engine runs: schema, what must hold, each service's command.

The commands run here as they stand in the file, with only the addresses changed.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from promptmill.producer.outputs.open import open_output
from promptmill.producer.outputs.output import Put
from promptmill.worker.settings import WorkerSettings
from tests.deploy.programs import PACKAGE, program
from tests.fake_gcs import fake_gcs_binary, free_port, wait_for_http
from tests.farm import running, wait_until

ROOT = Path(__file__).parents[1]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
WORKERS = [name for name in SERVICES if name.startswith("worker")]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]

Process = subprocess.Popen[bytes]


def words(service: str) -> list[str]:
    """The service's command, its program looked for beside our Python first."""
    program, *arguments = shlex.split(SERVICES[service]["command"])
    found = shutil.which(program, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI has no {program}")
        pytest.skip(f"no {program} here")
    return [found, *arguments]


def environment(service: str, broker: str) -> dict[str, str]:
    """Ours with the service's, Redis being elsewhere. What compose passes on is passed on already."""
    given = {name: str(value) for name, value in SERVICES[service]["environment"].items() if value is not None}
    assert given["PROMPTMILL_BROKER"].startswith("redis://")
    return {**os.environ, "XLA_FLAGS": "", **given, "PROMPTMILL_BROKER": broker}


@pytest.fixture
def compose_redis(tmp_path: Path) -> Iterator[str]:
    """The redis service, by its own command."""
    port = free_port()
    folder = tmp_path / "redis"
    folder.mkdir()
    elsewhere = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    with running([*words("redis"), *elsewhere], stdout=subprocess.DEVNULL) as process:
        client = redis.Redis(port=port)
        while True:
            assert process.poll() is None, "redis ended at once"
            with contextlib.suppress(redis.ConnectionError):
                if client.ping():
                    break
        yield f"redis://127.0.0.1:{port}/0"


# --- the file ---------------------------------------------------------------------------------------------------


def test_the_file_fits_composes_schema() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    checked = subprocess.run([*command, str(ROOT / "docker-compose.yml")], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_services_are_those_of_the_docs() -> None:
    by_profile: dict[str, set[str]] = {}
    for name, service in SERVICES.items():
        for profile in service.get("profiles", ["always"]):
            by_profile.setdefault(profile, set()).add(name)
    assert by_profile == {
        "always": {"redis", "flower"},
        "cpu": {"worker"},
        "cuda": {"worker-cuda"},
        "tpu": {"worker-tpu"},
        "monitoring": {"exporter", "prometheus", "grafana"},
        "fake-gcs": {"fake-gcs"},
    }
    head = (ROOT / "docker-compose.yml").read_text(encoding="utf-8").partition("\nname:")[0]
    assert set(re.findall(r"--profile (\S+)", head)) | {"cpu"} == set(by_profile) - {"always"}


def test_without_a_profile_there_is_a_worker_on_the_cpu() -> None:
    told = (ROOT / ".env").read_text(encoding="utf-8").splitlines()
    assert [line for line in told if not line.startswith("#")] == ["COMPOSE_PROFILES=cpu"]


@pytest.mark.parametrize("name", [*WORKERS, "flower", "exporter"])
def test_whoever_talks_to_redis_waits_until_it_is_healthy(name: str) -> None:
    service = SERVICES[name]
    assert service["depends_on"]["redis"]["condition"] == "service_healthy"
    assert "test" in SERVICES["redis"]["healthcheck"]
    host = re.fullmatch(r"redis://([^:]+):6379/0", service["environment"]["PROMPTMILL_BROKER"])
    assert host is not None
    # On the host's own network there are no service names, but there are published ports.
    assert host[1] == ("127.0.0.1" if service.get("network_mode") == "host" else "redis")
    assert "127.0.0.1:6379:6379" in SERVICES["redis"]["ports"]


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_is_given_the_time_to_stop_and_started_again(name: str) -> None:
    service = SERVICES[name]
    grace_s = int(service["stop_grace_period"].removesuffix("s"))
    settings = WorkerSettings()
    assert grace_s > settings.drain_s
    assert grace_s > settings.lease_s
    assert service["restart"] == "unless-stopped"
    assert {"./out:/out", "cache:/cache"} <= set(service["volumes"])
    assert "STORAGE_EMULATOR_HOST" in service["environment"]


def test_nothing_is_open_to_other_hosts() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_named_volumes_are_declared() -> None:
    mounted = {volume.partition(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert {name for name in mounted if not name.startswith(".")} == set(COMPOSE["volumes"])


def test_images_of_others_are_pinned() -> None:
    others = [service["image"] for service in SERVICES.values() if "build" not in service]
    assert all(re.search(r":v?\d", image) for image in others)


# --- the Dockerfile ---------------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def test_the_image_is_built_with_extras_that_exist() -> None:
    defaults = [rest.removeprefix("EXTRAS=") for word, rest in instructions() if word == "ARG"]
    given = [service["build"]["args"]["EXTRAS"] for service in SERVICES.values() if "build" in service]
    assert len(given) == 5
    for extras in defaults + given:
        assert set(extras.split(",")) <= set(EXTRAS)
    assert any(word == "RUN" and 'pip install ".[${EXTRAS}]"' in rest for word, rest in instructions())


def test_what_the_image_copies_is_there_and_not_ignored() -> None:
    let_in = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = [source for word, rest in instructions() if word == "COPY" for source in rest.split()[:-1]]
    assert {"producer", "worker", "dataset", "promptmill", "pyproject.toml", "README.md", "LICENSE"} <= set(copied)
    for source in copied:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in let_in


def test_the_image_does_not_run_as_root() -> None:
    users = [rest for word, rest in instructions() if word == "USER"]
    assert users[-1] != "root"


# --- the commands -----------------------------------------------------------------------------------------------


def test_redis_keeps_everything_on_disk_and_evicts_nothing(compose_redis: str) -> None:
    config: Any = redis.Redis.from_url(compose_redis, decode_responses=True).config_get("*")
    assert config["appendonly"] == "yes"
    assert config["appendfsync"] == "everysec"
    assert config["maxmemory-policy"] == "noeviction"


@pytest.mark.slow
def test_the_worker_gets_ready_is_healthy_and_stops(compose_redis: str, tmp_path: Path) -> None:
    # Given one command and one health check for all kinds of worker
    name = "worker"
    for key in ("command", "healthcheck"):
        assert all(SERVICES[other][key] == SERVICES[name][key] for other in WORKERS)
    log = tmp_path / "worker.log"
    metrics = free_port()
    env = {**environment(name, compose_redis), "PROMPTMILL_METRICS_PORT": str(metrics)}
    with log.open("wb") as stderr, running(words(name), env=env, stderr=stderr, cwd=tmp_path) as process:
        # When it runs
        wait_for_line(r"@\S+ ready\.", log, process)
        # Then it is healthy
        health = SERVICES[name]["healthcheck"]["test"]
        assert health[:2] == ["CMD", "python"]
        subprocess.run([sys.executable, *health[2:]], env=env, cwd=ROOT, check=True, timeout=60)
        assert _status(f"http://127.0.0.1:{metrics}/metrics") == 200
        # And when it is told to stop, it does so within the time it is given
        process.send_signal(signal.SIGTERM)
        grace_s = int(SERVICES[name]["stop_grace_period"].removesuffix("s"))
        assert process.wait(timeout=grace_s) == 0, log.read_text()
    # Then nobody is there any more to be healthy
    unhealthy = subprocess.run([sys.executable, *health[2:]], env=env, cwd=ROOT, check=False, timeout=60)
    assert unhealthy.returncode == 1


def wait_for_line(pattern: str, log: Path, process: Process) -> None:
    """Until a line of the log matches. pytest's own timeout is the limit."""
    while not re.search(pattern, log.read_text(encoding="utf-8")):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.1)
            pytest.fail(f"ended with {process.returncode} before it was ready:\n{log.read_text()}")


@pytest.mark.slow
def test_flower_answers(compose_redis: str, tmp_path: Path) -> None:
    command = words("flower")
    assert command[-1] == "--port=5555"
    port = free_port()
    log = tmp_path / "flower.log"
    options: dict[str, Any] = {"env": environment("flower", compose_redis), "cwd": ROOT}
    with log.open("wb") as stderr, running([*command[:-1], f"--port={port}"], stderr=stderr, **options) as process:
        wait_for_http(f"http://127.0.0.1:{port}/healthcheck", process)
        health = SERVICES["flower"]["healthcheck"]["test"]
        assert health[:3] == ["CMD", "python", "-c"]
        script = health[3].replace(":5555/", f":{port}/")
        subprocess.run([sys.executable, "-c", script], check=True, timeout=30)
        password = re.search("with the password (\\S+)", log.read_text())
        assert password, "one was made up"
        assert _status(f"http://127.0.0.1:{port}/workers") == 401
        assert _status(f"http://127.0.0.1:{port}/workers", f"promptmill:{password[1]}") == 200


def _status(url: str, user: str = "") -> int:
    header = {"Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"} if user else {}
    try:
        return int(urllib.request.urlopen(urllib.request.Request(url, headers=header)).status)
    except urllib.error.HTTPError as error:
        return error.code


def test_the_fake_bucket_is_there_and_takes_objects_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given the service's volume, which lies where the server looks for buckets
    (volume,) = SERVICES["fake-gcs"]["volumes"]
    mount = Path(volume.partition(":")[2])
    storage = tmp_path / "storage"
    (storage / mount.name).mkdir(parents=True)
    # When the image's entry point runs with the service's flags
    port = free_port()
    flags = shlex.split(SERVICES["fake-gcs"]["command"])
    assert flags[flags.index("-filesystem-root") + 1] == str(mount.parent)
    elsewhere = ["-port", str(port), "-host", "127.0.0.1", "-filesystem-root", str(storage)]
    entry_point = [str(fake_gcs_binary()), "-data", "/data"]
    command = [*entry_point, *flags, *elsewhere]
    with running(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_for_http(f"http://127.0.0.1:{port}/_internal/healthcheck", process)
        assert SERVICES["fake-gcs"]["healthcheck"]["test"][-1].endswith(":4443/_internal/healthcheck")
        # Then the bucket of the docs can be used, under whatever address the server thinks it has
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        output = open_output("gs://promptmill/images")
        output.check()
        assert output.put_once("a", b"pixels") is Put.CREATED
        assert output.put_once("a", b"pixelz", ours=lambda there: there.read() == b"pixels") is Put.ADOPTED


# --- monitoring -------------------------------------------------------------------------------------------------


def mounted(service: str) -> dict[str, Path]:
    """The files of ours that the service sees, by where it sees them."""
    pairs = [volume.removesuffix(":ro").split(":") for volume in SERVICES[service]["volumes"]]
    return {there: ROOT / here for here, there in pairs if here.startswith(".")}


@pytest.mark.slow
def test_the_exporter_tells_what_redis_knows(compose_redis: str) -> None:
    command = words("exporter")
    assert command[-2:] == ["--port", "9808"]
    port = free_port()
    with running([*command[:-1], str(port)], env=environment("exporter", compose_redis)) as process:
        wait_for_http(f"http://127.0.0.1:{port}/metrics", process)
        answer = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read()
        assert b"promptmill_redis_up 1.0" in answer


@pytest.mark.slow
def test_prometheus_reads_our_configuration_and_rules(tmp_path: Path) -> None:
    # Given the service's flags, and its files where it sees them
    flags = shlex.split(SERVICES["prometheus"]["command"])
    for there, here in mounted("prometheus").items():
        assert here.is_file()
        (tmp_path / Path(there).name).write_bytes(here.read_bytes())
    assert {str(Path(there).parent) for there in mounted("prometheus")} == {"/etc/prometheus"}
    assert any(volume.endswith(":/prometheus") for volume in SERVICES["prometheus"]["volumes"])
    moved = [
        flag.replace("=/etc/prometheus", f"={tmp_path}").replace("=/prometheus", f"={tmp_path}/tsdb") for flag in flags
    ]
    port = free_port()
    command = [program("prometheus", PACKAGE), *moved, f"--web.listen-address=127.0.0.1:{port}"]
    # When Prometheus runs with them
    with running(command, stderr=subprocess.DEVNULL) as process:
        wait_for_http(f"http://127.0.0.1:{port}/-/ready", process)
        # Then it has the rules, and looks for those whom it should scrape
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/rules") as answer:
            (group,) = json.load(answer)["data"]["groups"]
        assert len(group["rules"]) > 5

        def scraped() -> set[str]:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/targets?state=active") as answer:
                return {target["scrapeUrl"] for target in json.load(answer)["data"]["activeTargets"]}

        wait_until(lambda: "http://exporter:9808/metrics" in scraped(), "the exporter is one of them")


def test_prometheus_looks_where_the_services_are() -> None:
    config = yaml.safe_load((ROOT / "deploy" / "monitoring" / "prometheus.yml").read_text(encoding="utf-8"))
    exporter, worker = config["scrape_configs"]
    assert exporter["static_configs"][0]["targets"] == [f"exporter:{words('exporter')[-1]}"]
    (names,) = worker["dns_sd_configs"]
    ports = {SERVICES[name]["environment"]["PROMPTMILL_METRICS_PORT"] for name in WORKERS}
    assert {names["port"]} == ports
    assert set(names["names"]) == {name for name in WORKERS if "network_mode" not in SERVICES[name]}
    (host,) = worker["static_configs"][0]["targets"]
    assert [f"{host.partition(':')[0]}:host-gateway"] == SERVICES["prometheus"]["extra_hosts"]


def test_grafana_finds_the_board_and_prometheus() -> None:
    files = mounted("grafana")
    assert all(here.is_file() for here in files.values())
    (source,) = yaml.safe_load(files["/etc/grafana/provisioning/datasources/promptmill.yml"].read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090" and source["isDefault"]
    assert any(port.endswith(":9090") for port in SERVICES["prometheus"]["ports"])
    (provider,) = yaml.safe_load(files["/etc/grafana/provisioning/dashboards/promptmill.yml"].read_text())["providers"]
    board = Path(SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(board.parent) == provider["options"]["path"]
    assert files[str(board)].name == "board.json"
