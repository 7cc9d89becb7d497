"""A primary, a replica and three sentinels, as in production, whose primary a test may kill."""

import contextlib
import secrets
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import redis

from tests.fake_gcs import free_port
from tests.farm import server_program, wait_until

NAME = "mill"
DOWN_AFTER_MS = 1000
QUORUM = 2


class Guarded:
    """The servers, by name (`one` is the first primary), and the sentinels' port numbers. `url` is what users write."""

    def __init__(self, folder: Path, start: Callable[..., "subprocess.Popen[bytes]"]) -> None:
        self._folder, self._start = folder, start
        self.password, self.sentinel_password = secrets.token_hex(8), secrets.token_hex(8)
        self.ports = {name: free_port() for name in ("one", "two", "s1", "s2", "s3")}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.url = self.url_of()

    @property
    def sentinels(self) -> list[int]:
        return [port for name, port in self.ports.items() if name.startswith("s")]

    def url_of(self, name: str = NAME, password: str | None = None, sentinel_password: str | None = None) -> str:
        """The URL, with one part or another wrong."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.sentinels)
        login = f":{password or self.password}"
        asking = f"sentinel_password={sentinel_password or self.sentinel_password}"
        return f"sentinel://{login}@{hosts}/1?master_name={name}&{asking}"

    def start(self) -> None:
        self.start_server("one")
        self.start_server("two", "--replicaof", "127.0.0.1", str(self.ports["one"]))
        wait_until(lambda: self.info("two").get("master_link_status") == "up", "the replica follows")
        for name in ("s1", "s2", "s3"):
            self._start_sentinel(name)
        wait_until(lambda: all(map(self._knows_all, self.sentinels)), "the sentinels know each other and the replica")

    def start_server(self, name: str, *more: str) -> None:
        options = ["--bind", "127.0.0.1", "--port", str(self.ports[name]), "--save", "", "--dir", self._place(name)]
        options += ["--requirepass", self.password, "--masterauth", self.password]
        self._processes[name] = self._start([server_program(), *options, *more], stdout=subprocess.DEVNULL)
        wait_until(lambda: self.info(name), f"server {name} answers")

    def kill(self, name: str) -> None:
        self._processes[name].kill()
        self._processes[name].wait()

    def deafen(self, name: str) -> None:
        """From now on the replica hears nothing of its primary any more."""
        self._to(self.ports[name], self.password).config_set("masterauth", "wrong")
        self._to(self.ports[self.primary()], self.password).client_kill_filter(_type="replica")
        wait_until(lambda: self.info(name).get("master_link_status") == "down", f"{name} is deaf")

    def fail_over(self) -> None:
        """Have the sentinels swap primary and replica, which both live on."""
        self._sentinel(self.sentinels[0]).execute_command("SENTINEL FAILOVER", NAME)

    def freeze(self, name: str) -> None:
        """What a host that lost its power looks like: connections stay open, and nothing comes over them."""
        self._processes[name].send_signal(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        self._processes[name].send_signal(signal.SIGCONT)

    def info(self, name: str) -> dict[str, Any]:
        """What a server says of its part in the replication; {} where it does not answer."""
        return _asked(lambda: self._to(self.ports[name], self.password).info("replication")) or {}

    def primary(self) -> str:
        """The server that most sentinels call the primary."""
        ports = list(map(self._primary_of, self.sentinels))
        return next((name for name, port in self.ports.items() if ports.count(port) >= QUORUM), "")

    def _primary_of(self, sentinel: int) -> int | None:
        address = _asked(lambda: self._sentinel(sentinel).sentinel_get_master_addr_by_name(NAME))
        return address[1] if address else None

    def _start_sentinel(self, name: str) -> None:
        file = Path(self._place(name)) / "sentinel.conf"
        file.write_text(
            f"bind 127.0.0.1\nport {self.ports[name]}\ndir {file.parent}\n"
            f"requirepass {self.sentinel_password}\nsentinel sentinel-pass {self.sentinel_password}\n"
            f"sentinel monitor {NAME} 127.0.0.1 {self.ports['one']} {QUORUM}\n"
            f"sentinel auth-pass {NAME} {self.password}\n"
            f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}\nsentinel failover-timeout {NAME} 5000\n"
        )
        command = [server_program(), str(file), "--sentinel"]
        self._processes[name] = self._start(command, stdout=subprocess.DEVNULL)

    def _knows_all(self, port: int) -> bool:
        state = _asked(lambda: self._sentinel(port).sentinel_master(NAME)) or {}
        return state.get("num-other-sentinels") == 2 and state.get("num-slaves") == 1

    def _sentinel(self, port: int) -> Any:
        return self._to(port, self.sentinel_password)

    def _to(self, port: int, password: str) -> Any:
        return redis.Redis(port=port, password=password, socket_timeout=2.0)

    def _place(self, name: str) -> str:
        (self._folder / name).mkdir(exist_ok=True)
        return str(self._folder / name)


def _asked(question: Callable[[], Any]) -> Any:
    with contextlib.suppress(redis.RedisError):
        return question()
    return None


@contextlib.contextmanager
def guarded(folder: Path) -> Iterator[Guarded]:
    """All five processes, which are killed in the end."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*args: Any, **options: Any) -> "subprocess.Popen[bytes]":
        started.append(subprocess.Popen(*args, **options))
        return started[-1]

    try:
        servers = Guarded(folder, start)
        servers.start()
        yield servers
    finally:
        for process in started:
            process.kill()
            process.wait()
