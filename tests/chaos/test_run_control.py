"""What people do to runs while real workers render: it takes effect within a batch or two."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from promptmill.producer.broker import connect
from promptmill.producer.job import Job
from promptmill.producer.queue.control import cancel, pause, purge, unpause
from promptmill.producer.queue.ledger import Ledger, RunStatus
from promptmill.producer.queue.queue import JobQueue
from tests.entries import as_entries
from tests.farm import Farm, farm_of, wait_until

pytestmark = pytest.mark.slow

IN_FLIGHT = 6  # batches, of one image on one device: what a worker holds at most
STEPS = 12


@pytest.fixture(scope="module")
def farm(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    connect(redis_url).flushall()
    with farm_of(redis_url, tmp_path_factory.mktemp("farm")) as farm:
        farm.start_worker()
        farm.wait_until_ready(0)
        yield farm


@pytest.fixture(scope="module")
def redis_client(redis_url: str) -> redis.Redis:
    """Not emptied between two tests: the worker lives on."""
    return connect(redis_url)


@pytest.fixture
def ledger(redis_client: redis.Redis) -> Ledger:
    return Ledger(redis_client)


Enter = Callable[..., None]


@pytest.fixture
def enter(redis_client: redis.Redis, ledger: Ledger, tmp_path: Path) -> Iterator[Enter]:
    """Enters runs; what is left of them is purged."""
    names = []

    def enter(run: str, count: int, priority: str = "normal", size: int = 64) -> None:
        names.append(run)
        sizes = {"width": size, "height": 64, "num_inference_steps": STEPS}
        jobs = [Job(prompt=f"{run} {n}", model="tiny-random", **sizes) for n in range(count)]  # type: ignore[arg-type]
        ledger.open(run, output=str(tmp_path), digest="d", jobs=count, images=count, common={}, priority=priority)
        JobQueue(redis_client).enqueue(run, 0, count, as_entries(enumerate(jobs)))

    yield enter
    for name in names:
        if redis_client.exists(f"promptmill:run:{name}"):
            purge(redis_client, name, force=True)


def images(folder: Path, run: str) -> int:
    return len(list(folder.glob(f"{run}/images/*/*.png")))


def wait_for(ledger: Ledger, run: str, condition: Callable[[RunStatus], bool], what: str) -> RunStatus:
    wait_until(lambda: condition(ledger.status(run)), what)
    return ledger.status(run)


def test_a_cancel_takes_effect_within_the_batches_in_flight(farm, redis_client, ledger, enter, tmp_path):
    enter("long", 2000)
    wait_for(ledger, "long", lambda run: run.done >= 10, "some images are there")
    cancelled = cancel(redis_client, "long")
    enter("next", 5)
    wait_for(ledger, "next", lambda run: run.finished, "the worker went on to another run")
    run = ledger.status("long")
    assert run.state == "cancelled"
    assert 0 <= cancelled - run.cancelled <= IN_FLIGHT, "what came after the cancel"
    assert run.done + run.cancelled == 2000
    assert (run.failed, images(tmp_path, "long")) == (0, run.done)


def test_an_urgent_run_overtakes_within_the_batches_in_flight(farm, redis_client, ledger, enter):
    enter("long", 2000)
    wait_for(ledger, "long", lambda run: run.done >= 10, "some images are there")
    before = ledger.status("long").done
    enter("urgent", 30, priority="urgent")
    wait_for(ledger, "urgent", lambda run: run.finished, "the urgent run is finished")
    assert ledger.status("long").done - before <= IN_FLIGHT + 3, "those in flight, before it and after"


def test_an_urgent_run_of_another_shape_overtakes_too(farm, redis_client, ledger, enter):
    """While its program compiles the others go on; once it is there, nothing more of theirs is begun."""
    enter("long", 4000)
    wait_for(ledger, "long", lambda run: run.done >= 10, "some images are there")
    enter("urgent", 10, priority="urgent", size=72)
    wait_for(ledger, "urgent", lambda run: run.done >= 1, "its program is there")
    before = ledger.status("long").done
    wait_for(ledger, "urgent", lambda run: run.finished, "the urgent run is finished")
    assert ledger.status("long").done - before <= IN_FLIGHT + 3
    wait_for(ledger, "long", lambda run: run.done > before + 20, "the long run goes on")


def test_two_equal_runs_progress_alike_though_one_came_later(farm, redis_client, ledger, enter):
    enter("first", 2000)
    wait_for(ledger, "first", lambda run: run.done >= 20, "the first one is on its way")
    enter("second", 2000)
    first, second = ledger.status("first").done, ledger.status("second").done
    wait_for(ledger, "second", lambda run: run.done >= second + 40, "the second one is on its way")
    ahead = (ledger.status("first").done - first) - (ledger.status("second").done - second)
    assert abs(ahead) <= 2 * IN_FLIGHT


def test_a_pause_stops_a_run_and_resume_run_goes_on(farm, redis_client, ledger, enter, tmp_path):
    enter("long", 120)
    wait_for(ledger, "long", lambda run: run.done >= 10, "some images are there")
    pause(redis_client, "long")
    at = ledger.status("long").done
    wait_until(lambda: all(held == 0 for _, held in JobQueue(redis_client).backlog().values()), "what is held finishes")
    stopped = ledger.status("long").done
    assert stopped - at <= IN_FLIGHT
    enter("other", 20)
    wait_for(ledger, "other", lambda run: run.finished, "another run is rendered meanwhile")
    assert ledger.status("long").done == stopped
    assert ledger.status("long").state == "paused"
    unpause(redis_client, "long")
    run = wait_for(ledger, "long", lambda run: run.finished, "it goes on to its end")
    assert (run.done, run.failed, images(tmp_path, "long")) == (120, 0, 120)


def test_a_purge_under_a_working_worker_leaves_no_key_behind(farm, redis_client, ledger, enter):
    enter("long", 2000)
    wait_for(ledger, "long", lambda run: run.done >= 10, "some images are there")
    purge(redis_client, "long", force=True)
    enter("next", 10)
    wait_for(ledger, "next", lambda run: run.finished, "the worker went on to another run")
    time.sleep(1.0)  # a renewal of leases comes by
    assert [key for key in redis_client.scan_iter("promptmill:*") if "long" in key] == []
