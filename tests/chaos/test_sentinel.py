"""Sentinels promote a replica under a working farm: five real servers, real workers, and the URL that users write."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from promptmill.producer.broker import client_of, connect
from promptmill.producer.errors import BrokerError
from promptmill.worker.app import make_app
from promptmill.worker.settings import WorkerSettings
from tests.farm import Farm, farm_of, wait_until
from tests.sentinels import Guarded, guarded

pytestmark = pytest.mark.slow


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Guarded]:
    with guarded(tmp_path) as servers:
        yield servers


@pytest.fixture
def farm(servers: Guarded, tmp_path: Path) -> Iterator[Farm]:
    with farm_of(servers.url, tmp_path) as farm:
        yield farm


def images(folder: Path) -> list[str]:
    return [path.name for path in (folder / "images").rglob("*.png")]


def all_is_there_once(farm: Farm, output: Path, run: str, jobs: int) -> bool:
    over, names = farm.wait_until_finished(run), images(output / run)
    return (over["done"], over["failed"], len(names), len(set(names))) == (jobs, 0, jobs, jobs)


def test_the_primary_is_killed_and_the_replica_lacks_what_came_last(farm: Farm, servers: Guarded, tmp_path: Path):
    output = tmp_path / "out"
    worker = farm.start_worker()
    farm.submit([f"first {n}" for n in range(150)], str(output), "first", "--steps", "12")
    wait_until(lambda: len(images(output / "first")) >= 5, "some images landed")
    # Given a replica that hears nothing any more of images that land, and of a run that is submitted
    servers.deafen("two")
    heard = len(images(output / "first"))
    farm.submit([f"second {n}" for n in range(5)], str(output), "second", "--steps", "2")
    wait_until(lambda: len(images(output / "first")) >= heard + 5, "more images landed")
    # When the primary dies
    servers.kill("one")
    assert len(images(output / "first")) < 150, "in the middle of the run"
    wait_until(lambda: servers.primary() == "two", "the sentinels promote the replica")
    # Then the worker goes on by itself, and what is not known is resumed from the output
    assert "second" in farm.call("status", "second").stderr, "nobody knows it"
    assert farm.call("resume", "second", "--output", str(output)).returncode == 0
    assert all_is_there_once(farm, output, "first", 150)
    assert all_is_there_once(farm, output, "second", 5)
    assert worker.poll() is None, "it lived through it"
    # And the old primary follows when it is back
    servers.start_server("one")
    wait_until(lambda: servers.info("one").get("role") == "slave", "it was told that it is a replica")
    farm.submit(["third"], str(output), "third", "--steps", "2")
    assert all_is_there_once(farm, output, "third", 1)


def test_a_primary_that_hangs_holds_no_worker_for_long(farm: Farm, servers: Guarded, tmp_path: Path):
    """No connection is closed: TCP alone would wait for a quarter of an hour."""
    worker = farm.start_worker()
    farm.submit([f"prompt {n}" for n in range(150)], str(tmp_path / "out"), "r", "--steps", "12")
    wait_until(lambda: len(images(tmp_path / "out" / "r")) >= 5, "some images landed")
    servers.freeze("one")
    assert len(images(tmp_path / "out" / "r")) < 150, "in the middle of the run"
    wait_until(lambda: servers.primary() == "two", "the sentinels promote the replica")
    assert all_is_there_once(farm, tmp_path / "out", "r", 150)
    servers.thaw("one")
    wait_until(lambda: servers.info("one").get("role") == "slave", "the old primary was told")
    farm.submit(["later"], str(tmp_path / "out"), "later", "--steps", "2")
    assert all_is_there_once(farm, tmp_path / "out", "later", 1)
    assert worker.poll() is None, "it lived through it"


def test_a_primary_that_becomes_a_replica_is_left(farm: Farm, servers: Guarded, tmp_path: Path):
    output, client = tmp_path / "out", connect(servers.url)
    worker = farm.start_worker()
    farm.submit([f"before {n}" for n in range(60)], str(output), "before", "--steps", "12")
    wait_until(lambda: len(images(output / "before")) >= 5, "some images landed")
    servers.fail_over()
    wait_until(lambda: servers.info("one").get("role") == "slave", "the old primary was told")
    assert client.set("key", "value"), "written to the new one, and not refused as READONLY"
    assert connect(servers.url).get("key") == "value"
    farm.submit([f"after {n}" for n in range(20)], str(output), "after", "--steps", "2")
    assert all_is_there_once(farm, output, "before", 60)
    assert all_is_there_once(farm, output, "after", 20)
    assert worker.poll() is None, "it lived through it"


def test_what_is_wrong_with_sentinels_is_a_sentence_without_passwords(servers: Guarded):
    wrong = "n0t-this"
    urls = {
        servers.url_of(name="other"): "the sentinels know no master 'other'; they know mill",
        servers.url_of(sentinel_password=wrong): "the sentinels want a password, or another one",
        servers.url_of(password=wrong): "needs a password, or another one",
    }
    for url, sentence in urls.items():
        _is_told(url, sentence, servers, wrong)
    assert client_of(servers.url).ping()
    servers.kill("s1")
    assert connect(servers.url).ping(), "two sentinels are enough"
    for name in ("one", "two", "s2"):
        servers.kill(name)
    wait_until(lambda: _told(servers.url).count("is down, and have none in its place"), "the primary counts as down")
    servers.kill("s3")
    _is_told(servers.url, "no sentinel answers", servers, wrong)


def test_a_worker_tells_nobody_the_passwords(farm: Farm, servers: Guarded):
    farm.start_worker()
    farm.wait_until_ready(0)
    inspect = make_app(WorkerSettings(broker=servers.url)).control.inspect(timeout=5.0, limit=1)
    told = json.dumps([wait_until(inspect.stats, "it tells of itself"), inspect.conf()])
    assert '"master_name": "mill"' in told
    assert not any(secret in told for secret in (servers.password, servers.sentinel_password))


def _is_told(url: str, sentence: str, servers: Guarded, wrong: str) -> None:
    told = _told(url)
    assert sentence in told
    assert not any(secret in told for secret in (servers.password, servers.sentinel_password, wrong))


def _told(url: str) -> str:
    try:
        connect(url)
    except BrokerError as error:
        return str(error)
    return ""
