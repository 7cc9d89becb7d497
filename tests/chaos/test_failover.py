"""A replica that lacks what came last is promoted, and a network that is cut: real servers, a real worker, a proxy."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from promptmill.producer.broker import client_of
from tests.fake_gcs import free_port
from tests.farm import Farm, farm_of, running, server_program, wait_until
from tests.switching_wire import SwitchingWire, switching_wire

pytestmark = pytest.mark.slow
PASSWORD = "secret"


class Server:
    """A redis-server, that of `primary` once more where one is given."""

    def __init__(self, folder: Path, primary: int | None = None) -> None:
        self.port = free_port()
        folder.mkdir()
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--requirepass", PASSWORD, "--save", ""]
        options += ["--masterauth", PASSWORD, "--dir", str(folder)]
        if primary is not None:
            options += ["--replicaof", "127.0.0.1", str(primary)]
        self.command = [server_program(), *options]
        self.client = client_of(f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0")

    def answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[tuple[Server, "subprocess.Popen[bytes]"]]:
    server = Server(tmp_path / "primary")
    with running(server.command, stdout=subprocess.DEVNULL) as process:
        wait_until(server.answers, "the primary answers")
        yield server, process


@pytest.fixture
def wire(primary: tuple[Server, "subprocess.Popen[bytes]"]) -> Iterator[SwitchingWire]:
    with switching_wire(primary[0].port, PASSWORD) as wire:
        yield wire


@pytest.fixture
def farm(wire: SwitchingWire, tmp_path: Path) -> Iterator[Farm]:
    with farm_of(wire.url, tmp_path) as farm:
        yield farm


def images(folder: Path) -> list[str]:
    return [path.name for path in (folder / "images").rglob("*.png")]


def test_what_a_promoted_replica_never_heard_of_is_resumed_from_the_output(farm, wire, primary, tmp_path):
    (server, process), output = primary, tmp_path / "out"
    replica = Server(tmp_path / "replica", server.port)
    with running(replica.command, stdout=subprocess.DEVNULL):
        farm.submit([f"first {n}" for n in range(40)], str(output), "first", "--steps", "2")
        wait_until(lambda: replica.answers() and replica.client.exists("promptmill:run:first"), "it was replicated")
        # Given a replica that hears nothing any more, a worker that goes on, and a run that was submitted since
        replica.client.replicaof("NO", "ONE")
        farm.submit([f"second {n}" for n in range(5)], str(output), "second", "--steps", "2")
        farm.start_worker()
        wait_until(lambda: len(images(output / "first")) >= 5, "some images landed")
        # When the primary dies and the replica takes its part
        process.kill()
        process.wait()
        wire.turn_to(replica.port)
        assert "second" in farm.call("status", "second").stderr, "nobody knows it"
        assert farm.call("resume", "second", "--output", str(output)).returncode == 0
        # Then all is rendered, and each image is there once
        for run, jobs in (("first", 40), ("second", 5)):
            over = farm.wait_until_finished(run)
            assert (over["done"], over["failed"]) == (jobs, 0)
            assert len(images(output / run)) == len(set(images(output / run))) == jobs


def test_a_network_that_is_cut_beyond_the_lease_loses_nothing(farm, wire, primary, tmp_path):
    (server, _), output = primary, tmp_path / "out"
    farm.submit([f"image {n}" for n in range(40)], str(output), "r", "--steps", "2")
    farm.start_worker()
    wait_until(lambda: len(images(output / "r")) >= 3, "some images landed")
    wire.turn_to(None)
    lease_s = float(farm.environ["PROMPTMILL_LEASE_S"])
    before = server.client.time()[0]
    wait_until(lambda: server.client.time()[0] > before + 2 * lease_s, "all leases are over")
    wire.turn_to(server.port)
    over = farm.wait_until_finished("r")
    assert (over["done"], over["failed"]) == (40, 0)
    assert len(images(output / "r")) == 40


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may mount a small file system")
def test_a_full_disk_is_waited_for_and_leaves_no_half_image(farm, tmp_path):
    output = tmp_path / "small"
    output.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(output)], check=False).returncode:
        pytest.skip("this root may not mount")
    try:
        farm.submit([f"image {n}" for n in range(10)], str(output), "r", "--steps", "2")
        filler = output / "filler"
        with pytest.raises(OSError, match="No space left"), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        farm.start_worker()
        wait_until(lambda: "No space left" in farm.log(0), "the worker meets the full disk")
        assert images(output / "r") == []
        filler.unlink()
        over = farm.wait_until_finished("r", timeout_s=240)
        assert (over["done"], over["failed"]) == (10, 0)
    finally:
        farm.stop()
        subprocess.run(["umount", str(output)], check=True)
