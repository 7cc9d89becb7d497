"""What SECURITY.md promises: TLS and users that may do little, JSON only, and findings of bandit explained."""

import datetime
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from celery.worker import control
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from kombu.exceptions import ContentDisallowed
from kombu.serialization import dumps, loads

from promptmill.producer.broker import client_of
from promptmill.worker.app import make_app
from promptmill.worker.settings import WorkerSettings
from tests.fake_gcs import free_port
from tests.farm import Farm, farm_of, server_program, wait_until

ROOT = Path(__file__).parents[1]
USERS = ROOT / "deploy" / "redis-users.acl"

EXPLAINED = {
    ("promptmill/embedded.py", "B108"): "a path to fall back to, in which mkdtemp makes a folder of mode 0700",
    ("promptmill/importing/sources.py", "B615"): "a person names repository and revision on the command line",
    ("promptmill/notices.py", "B602"): "the command is the user's own setting",
    ("promptmill/verbs/exporter.py", "B104"): "Prometheus asks from another host; --bind narrows it",
    ("producer/prompts/tables.py", "B615"): "a person names the data set and its revision on the command line",
    (
        "worker/executables.py",
        "B301",
    ): "only a file of this user that no other may write, of the right digest",
    ("worker/settings.py", "B104"): "Prometheus asks from another host; the setting narrows it",
}
"""Bandit's findings of medium severity and more, by file and test: why each is meant."""


@pytest.mark.slow
def test_bandit_finds_nothing_that_is_not_explained():
    folders = ["producer", "worker", "dataset", *map(str, (ROOT / "promptmill").glob("*.py"))]
    folders += [str(ROOT / "promptmill" / name) for name in ("verbs", "importing")]
    command = [sys.executable, "-m", "bandit", "-q", "-ll", "-f", "json", "-r", *folders]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    results = json.loads(told.stdout)["results"]
    found = {(os.path.relpath(ROOT / one["filename"], ROOT), one["test_id"]) for one in results}
    assert found == set(EXPLAINED), "explain it in EXPLAINED, or mend it"


def certificate(folder: Path) -> dict[str, Path]:
    """A key and a certificate for localhost that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    files = {"key": folder / "redis.key", "certificate": folder / "redis.crt"}
    files["key"].write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    files["certificate"].write_bytes(made.public_bytes(pem))
    return files


class GuardedRedis:
    """A Redis that speaks TLS alone, and knows the users of deploy/redis-users.acl."""

    def __init__(self, folder: Path) -> None:
        self.files, self.port = certificate(folder), free_port()
        users = USERS.read_text().replace("\n\n", "\n")
        for user in ("submitter", "worker"):
            users = users.replace(f"{user.upper()}_SHA256", hashlib.sha256(user.encode()).hexdigest())
        lines = [line for line in users.splitlines() if line and not line.startswith("#")]
        (folder / "users.acl").write_text("\n".join([*lines, "user admin on >admin ~* &* +@all"]) + "\n")
        options = {
            "port": "0",
            "tls-port": str(self.port),
            "tls-auth-clients": "no",
            "save": "",
            "dir": str(folder),
            "tls-cert-file": str(self.files["certificate"]),
            "tls-key-file": str(self.files["key"]),
            "tls-ca-cert-file": str(self.files["certificate"]),
            "aclfile": str(folder / "users.acl"),
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        self.process = subprocess.Popen([server_program(), *words], stdout=subprocess.DEVNULL)
        self.admin = client_of(self.url("admin"))
        wait_until(self._answers, "Redis answers")

    def url(self, user: str) -> str:
        return f"rediss://{user}:{user}@localhost:{self.port}/0?ssl_ca_certs={self.files['certificate']}"

    def _answers(self) -> bool:
        try:
            return bool(self.admin.ping())
        except redis.RedisError:
            return False


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[GuardedRedis]:
    server = GuardedRedis(tmp_path)
    yield server
    server.process.kill()
    server.process.wait()


@pytest.fixture
def farm(guarded: GuardedRedis, tmp_path: Path) -> Iterator[Farm]:
    with farm_of(guarded.url("worker"), tmp_path) as farm:
        yield farm


@pytest.mark.slow
def test_a_run_is_rendered_over_tls_by_users_who_may_do_little(farm: Farm, guarded: GuardedRedis, tmp_path: Path):
    worker = farm.start_worker()
    farm.wait_until_ready(0)
    farm.environ["PROMPTMILL_BROKER"] = guarded.url("submitter")
    farm.submit(["one", "two"], str(tmp_path / "out"), "r", "--steps", "2")
    run = farm.wait_until_finished("r")
    assert (run["done"], run["failed"]) == (2, 0)
    denied: list[Any] = guarded.admin.acl_log()
    told = [(one["username"], one["reason"], one["object"]) for one in denied]
    assert not told, f"what they may not do, they did not need: {told}"
    worker.terminate()
    worker.wait(60)


class Bomb:
    """What runs a command wherever it is unpickled."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self._path,)


def test_users_reach_nothing_but_our_keys(guarded: GuardedRedis):
    for user in ("submitter", "worker"):
        client = client_of(guarded.url(user))
        client.set("promptmill:x", 1)
        for denied in (("SET", "other", 1), ("FLUSHALL",), ("CONFIG", "GET", "*"), ("KEYS", "*"), ("SHUTDOWN",)):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*denied)
    with pytest.raises(redis.exceptions.NoPermissionError):
        client_of(guarded.url("submitter")).execute_command("LPUSH", "promptmill", "a task for Celery")


@pytest.mark.parametrize(
    "broker",
    [
        "redis://:geheim@host:6379/0",
        "unix://:geheim@/run/redis.sock?db=1",
        "sentinel://:geheim@one:26379,two:26379/0?master_name=mill&sentinel_password=geheim",
    ],
)
def test_what_celery_and_flower_show_of_a_workers_settings_has_no_password(broker: str):
    app = make_app(WorkerSettings(broker=broker))
    told = json.dumps(control.conf(SimpleNamespace(app=app)))
    assert "WorkerSettings(" in told
    assert "geheim" not in told
    assert "geheim" not in app.bugreport()


def test_celery_takes_json_alone(tmp_path: Path):
    app = make_app(WorkerSettings())
    kind, encoding, data = dumps(Bomb(str(tmp_path / "executed")), serializer="pickle")
    with pytest.raises(ContentDisallowed):
        loads(data, kind, encoding, accept=set(app.conf.accept_content))
    assert not (tmp_path / "executed").exists()
    assert app.conf.accept_content == ["json"]
    assert (app.conf.task_serializer, app.conf.event_serializer) == ("json", "json")


@pytest.mark.slow
def test_two_builds_of_the_wheel_are_the_same_bytes(tmp_path: Path):
    digests = set()
    for name in ("a", "b"):
        tree, out = tmp_path / name, tmp_path / f"{name}-out"
        tree.mkdir()
        archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True)
        subprocess.run(
            ["tar", "x", "-C", tree, *(["--touch"] if name == "b" else [])], input=archive.stdout, check=True
        )
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(out), str(tree)]
        subprocess.run(command, check=True, env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"})
        digests.add(hashlib.sha256(next(out.glob("*.whl")).read_bytes()).hexdigest())
    assert len(digests) == 1
