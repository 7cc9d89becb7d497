"""`promptmill doctor`: what is right, what is not, and what to do about it."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.fake_gcs import FakeGcs
from tests.gcs_wire import serve
from tests.mortal_redis import MortalRedis
from tests.promptmill.conftest import Command

Findings = dict[str, dict[str, Any]]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    return tmp_path / "promptmill"


def told(promptmill: Command, *words: str, code: int = 0) -> Findings:
    answer = promptmill("doctor", "--json", *words)
    assert answer.code == code, answer.err
    return {finding["part"]: finding for finding in json.loads(answer.out)}


def test_a_host_that_is_well(promptmill: Command, cache: Path, redis_url: str, client: redis.Redis, tmp_path: Path):
    found = told(promptmill, "--broker", redis_url, "--output", str(tmp_path / "out"))
    assert {finding["state"] for finding in found.values()} <= {"ok", "warning"}
    assert found["devices"]["found"].startswith("8 x cpu")
    assert "jax" in found["versions"]["found"]
    assert "ms there and back" in found["Redis, way there"]["found"]
    assert found["output"]["found"].endswith("listed, read, and promptmill-doctor.txt written once")
    again = told(promptmill, "--broker", redis_url, "--output", str(tmp_path / "out"))
    assert again["output"]["found"].endswith("there from before")


def test_no_redis_is_a_warning_where_none_was_named_and_wrong_where_one_was(promptmill: Command, cache: Path):
    nobody = "redis://127.0.0.1:1/0"
    found = told(promptmill, "--broker", nobody, code=2)["Redis"]
    assert found["state"] == "wrong" and found["found"].startswith(f"no Redis at {nobody}")


def test_devices_that_jax_does_not_find(promptmill: Command, cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JAX_PLATFORMS", "nosuch")
    found = told(promptmill, "--broker", "redis://127.0.0.1:1/0", code=2)["devices"]
    assert found["state"] == "wrong" and "nosuch" in found["found"]


def test_a_redis_that_evicts_is_wrong(promptmill: Command, cache: Path, redis_url: str, client: redis.Redis):
    client.config_set("maxmemory", "100mb")
    client.config_set("maxmemory-policy", "allkeys-lru")
    found = told(promptmill, "--broker", redis_url, code=2)["Redis"]
    assert "Set maxmemory-policy noeviction" in found["advice"]
    client.config_set("maxmemory-policy", "noeviction")
    assert told(promptmill, "--broker", redis_url)["Redis"]["state"] in ("ok", "warning")


def test_a_redis_that_takes_no_writes_is_wrong(promptmill: Command, cache: Path, mortal_redis: MortalRedis):
    admin = redis.Redis.from_url(mortal_redis.url)
    admin.config_set("maxmemory", "1")
    found = told(promptmill, "--broker", mortal_redis.url, code=2)["Redis"]
    assert "takes no jobs" in found["found"] and "raise maxmemory" in found["advice"]
    admin.config_set("maxmemory", "0")
    admin.acl_setuser("looker", enabled=True, passwords=["+looker"], commands=["+ping", "+info"], keys=["*"])
    looker = mortal_redis.url.replace("://:", "://looker:").replace(admin.get_connection_kwargs()["password"], "looker")
    found = told(promptmill, "--broker", looker, code=2)["Redis"]
    assert "'set'" in found["found"] and "redis-users.acl" in found["advice"]


@pytest.mark.parametrize("read_only", ["yes", "no"])
def test_a_replica_is_wrong(promptmill: Command, cache: Path, mortal_redis: MortalRedis, read_only: str):
    admin = redis.Redis.from_url(mortal_redis.url)
    admin.replicaof("127.0.0.1", 1)
    admin.config_set("replica-read-only", read_only)
    found = told(promptmill, "--broker", mortal_redis.url, code=2)["Redis"]
    assert found["state"] == "wrong" and "name the primary" in found["advice"]


def test_a_redis_that_hangs_is_told_within_seconds(promptmill: Command, cache: Path, mortal_redis: MortalRedis):
    mortal_redis.signal(signal.SIGSTOP)
    began = time.monotonic()
    found = told(promptmill, "--broker", mortal_redis.url, code=2)["Redis"]
    assert found["state"] == "wrong" and "imeout" in found["found"]
    assert time.monotonic() - began < 30


def test_a_cache_in_a_folder_of_somebody_elses(promptmill: Command, cache: Path, monkeypatch: pytest.MonkeyPatch):
    (cache.parent / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parent / ("x" * 300)))  # as root nothing is forbidden, but this
    found = told(promptmill, "--broker", "redis://127.0.0.1:1/0", code=2)["cache"]
    assert found["state"] == "warning" and "XDG_CACHE_HOME" in found["advice"]
    monkeypatch.delenv("XDG_CACHE_HOME")


def test_an_output_that_cannot_be_written_is_wrong(promptmill: Command, cache: Path, redis_url: str, tmp_path: Path):
    (tmp_path / "file").write_text("")
    found = told(promptmill, "--broker", redis_url, "--output", str(tmp_path / "file"), code=2)["output"]
    assert f"{tmp_path / 'file'} is not a folder" in found["found"] and "choose a folder" in found["advice"]


def test_a_bucket_is_tried(promptmill: Command, cache: Path, redis_url: str, fake_gcs: FakeGcs, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake_gcs.url)
    found = told(promptmill, "--broker", redis_url, "--output", f"{fake_gcs.create_bucket('doctor')}/images")["output"]
    assert found["state"] == "ok"


@pytest.mark.parametrize("part", ["GET /storage", "POST /upload"])
def test_a_bucket_that_refuses_is_wrong(
    promptmill: Command, cache: Path, redis_url: str, fake_gcs: FakeGcs, monkeypatch, part: str
):
    bucket = fake_gcs.create_bucket(f"refusing-{part[:3].lower()}")
    with serve(fake_gcs.port) as wire:
        wire.refuse = lambda request, body: 403 if request.startswith(part) else None
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", wire.url)
        found = told(promptmill, "--broker", redis_url, "--output", f"{bucket}/images", code=2)["output"]
    assert found["state"] == "wrong" and "roles/storage.objectUser" in found["advice"]


def test_a_bucket_that_is_not_there_is_wrong(
    promptmill: Command, cache: Path, redis_url: str, fake_gcs: FakeGcs, monkeypatch
):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake_gcs.url)
    for url, problem in (("gs://nobodys/images", "does not exist"), ("gs://no-/images", "cannot be called 'no-'")):
        found = told(promptmill, "--broker", redis_url, "--output", url, code=2)["output"]
        assert found["state"] == "wrong" and problem in found["found"] and found["advice"]


def test_a_cache_where_others_may_write_is_told(promptmill: Command, cache: Path, redis_url: str):
    cache.mkdir()
    cache.chmod(0o777)
    found = told(promptmill, "--broker", redis_url)["cache"]
    assert found["state"] == "warning" and f"chmod 700 {cache}" in found["advice"]


def test_the_words_are_for_people(promptmill: Command, cache: Path, redis_url: str):
    answer = promptmill("doctor", "--broker", redis_url)
    assert answer.out.splitlines()[0].startswith("ok       versions: promptmill ")
