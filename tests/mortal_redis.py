"""A Redis as in production that a test may kill and start again."""

import secrets
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from promptmill.producer.broker import connect
from promptmill.producer.errors import BrokerError
from tests.fake_gcs import free_port
from tests.farm import server_program, wait_until


class MortalRedis:
    """A Redis as in production: append-only file, no eviction."""

    def __init__(self, folder: Path) -> None:
        self._password = secrets.token_hex(8)
        self._port = free_port()
        self._folder = folder
        self.url = f"redis://:{self._password}@127.0.0.1:{self._port}/0"

    def start(self) -> None:
        options = ["--bind", "127.0.0.1", "--port", str(self._port), "--requirepass", self._password]
        options += ["--dir", str(self._folder), "--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
        self._process = subprocess.Popen([server_program(), *options], stdout=subprocess.DEVNULL)
        wait_until(self._answers, "Redis answers")

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def _answers(self) -> bool:
        try:
            return bool(connect(self.url).ping())
        except BrokerError:
            return False


@pytest.fixture
def mortal_redis(tmp_path: Path) -> Iterator[MortalRedis]:
    server = MortalRedis(tmp_path)
    server.start()
    yield server
    server.kill()
