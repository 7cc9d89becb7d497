"""A farm whose Redis is behind a unix socket, behind TLS with a certificate of its own, or behind Sentinel."""

import gc
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from promptmill.producer.broker import connect
from promptmill.producer.broker_url import celery_options, celery_url
from promptmill.producer.errors import BrokerError
from tests.fake_gcs import free_port
from tests.farm import farm_of, server_program, wait_until
from tests.sentinels import guarded

pytestmark = pytest.mark.slow


def certificate(folder: Path) -> tuple[Path, Path]:
    """A key and a certificate for 127.0.0.1 that signs itself."""
    key, cert = folder / "key.pem", folder / "cert.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", str(key)]
    subprocess.run([*command, "-out", str(cert), *subject], check=True, capture_output=True)
    return key, cert


@pytest.fixture(params=["unix", "rediss", "sentinel"])
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A URL of each form but `redis://`."""
    folder = tmp_path_factory.mktemp("redis")
    if request.param == "sentinel":
        with guarded(folder) as servers:
            yield servers.url
            gc.collect()
        return
    options = ["--port", "0", "--save", "", "--dir", str(folder), "--requirepass", "a:b"]
    if request.param == "unix":
        options += ["--unixsocket", str(folder / "r.sock"), "--unixsocketperm", "700"]
        url = f"unix://:a%3Ab@{folder}/r.sock?db=1"
    else:
        key, cert = certificate(folder)
        port = free_port()
        options += ["--tls-port", str(port), "--tls-cert-file", str(cert), "--tls-key-file", str(key)]
        options += ["--tls-auth-clients", "no", "--bind", "127.0.0.1"]
        url = f"rediss://:a%3Ab@127.0.0.1:{port}/1?ssl_ca_certs={cert}"
    server = subprocess.Popen([server_program(), *options], stdout=subprocess.DEVNULL)
    wait_until(lambda: _answers(url), "Redis answers")
    yield url
    gc.collect()  # results of Celery say goodbye to Redis, which must be there for it
    server.kill()
    server.wait()


def _answers(url: str) -> bool:
    try:
        return bool(connect(url).ping())
    except BrokerError:
        return False


def test_all_verbs_the_worker_and_celery_work_there(broker: str, tmp_path: Path) -> None:
    with farm_of(broker, tmp_path) as farm:
        farm.start_worker()
        farm.submit(["a cat", "a dog"], str(tmp_path / "out"), "r", "--steps", "2")
        assert farm.wait_until_finished("r")["done"] == 2
        app = Celery("somebody", broker=celery_url(broker), backend=celery_url(broker))
        app.conf.broker_transport_options = app.conf.result_backend_transport_options = celery_options(broker)
        fields: dict[str, Any] = {
            "prompt": "a cow",
            "output": str(tmp_path / "out"),
            "model": "tiny-random",
            "steps": 2,
        }
        answer = app.send_task("promptmill.render", kwargs=fields, queue="promptmill").get(timeout=120)
        wait_until(Path(answer["image"]).exists, "the image is there")
        rendered = farm.call(
            "render", str(farm.folder / "r.txt"), "--broker", broker, "--output", str(tmp_path / "two")
        )
        assert rendered.returncode == 0, rendered.stderr
        assert "Traceback" not in farm.log(0)
