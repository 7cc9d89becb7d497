"""The network between a worker and Redis is cut, as a switch does it: in namespaces of their own, without a proxy."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from promptmill.producer.broker import client_of
from promptmill.producer.queue.queue import JobQueue
from tests.farm import Farm, farm_of, running, server_program, wait_until
from tests.namespaces import Cable, Namespace, cable, namespaces

pytestmark = pytest.mark.slow
PASSWORD = "secret"
PORT = 6379
JOBS = 150


class Hosts:
    """Redis on a host of its own, with a cable to us, and one to another host for the worker that is cut off."""

    def __init__(self, farm: Farm, client: redis.Redis, worker: Namespace, cable: Cable) -> None:
        self.farm, self.client, self._worker, self.cable = farm, client, worker, cable

    def start_far_worker(self) -> "subprocess.Popen[bytes]":
        command = (sys.executable, "-m", "promptmill", "worker", "--broker", url_at(self.cable.near))
        return self.farm.start_worker(*self._worker.command(*command))

    def held(self) -> int:
        return sum(held for _, held in JobQueue(self.client).backlog().values())


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    with (
        namespaces("redis", "worker") as (store, worker),
        cable(store, None) as ours,
        cable(store, worker) as far,
        running(server(store, [ours.near, far.near], tmp_path), stdout=subprocess.DEVNULL),
        farm_of(url_at(ours.near), tmp_path) as farm,
    ):
        client = client_of(url_at(ours.near))
        wait_until(lambda: answers(client), "Redis answers")
        yield Hosts(farm, client, worker, far)


def server(host: Namespace, addresses: list[str], folder: Path) -> list[str]:
    options = ["--port", str(PORT), "--requirepass", PASSWORD, "--save", "", "--dir", str(folder)]
    return [*host.command(server_program(), "--bind", *addresses, *options)]


def url_at(address: str) -> str:
    return f"redis://:{PASSWORD}@{address}:{PORT}/0"


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


CUTS: dict[str, Callable[[Cable], Any]] = {"both ways": Cable.cut, "answers": Cable.cut_towards_far}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_a_worker_that_is_cut_off_is_replaced_and_works_again(hosts: Hosts, cut: Callable[..., Any], tmp_path: Path):
    farm, output = hosts.farm, tmp_path / "out"
    far = hosts.start_far_worker()
    farm.submit([f"image {n}" for n in range(JOBS)], str(output), "r", "--steps", "12")
    wait_until(lambda: len(images(output / "r")) >= 5 and hosts.held(), "some images landed, and it holds more")
    # When nothing reaches it any more, and another one is at work
    cut(hosts.cable)
    assert hosts.held(), "what it holds is lost to it"
    near = farm.start_worker()
    all_is_there_once(farm, output, "r", JOBS)
    wait_until(lambda: "leases could not be renewed" in farm.log(0), "it knows that its leases are over")
    # Then, when the way is mended, it is rid of what it held, and renders alone what comes next
    near.terminate()
    near.wait(60)
    hosts.cable.mend()
    farm.submit([f"later {n}" for n in range(20)], str(output), "later", "--steps", "2")
    all_is_there_once(farm, output, "later", 20)
    wait_until(lambda: hosts.held() == 0, "nothing is held")
    assert (farm.run("r")["done"], len(images(output / "r"))) == (JOBS, JOBS), "nothing was counted or written twice"
    assert far.poll() is None, "it lived through it"


def images(folder: Path) -> list[str]:
    return [path.name for path in (folder / "images").rglob("*.png")]


def all_is_there_once(farm: Farm, output: Path, run: str, jobs: int) -> None:
    over, names = farm.wait_until_finished(run), images(output / run)
    assert (over["done"], over["failed"], len(names), len(set(names))) == (jobs, 0, jobs, jobs)
