"""Other ways in than the command line, all the way to the image: Python, and any Celery client."""

import asyncio
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from celery.result import AsyncResult

import promptmill
from promptmill import FinishedImage
from promptmill.producer.broker_url import celery_url
from promptmill.worker.encode import job_id_inside
from tests.farm import Farm, farm_of, wait_until

pytestmark = pytest.mark.slow

TINY: dict[str, Any] = {"model": "tiny-random", "steps": 2}


@pytest.fixture
def farm(client: redis.Redis, redis_url: str, tmp_path: Path) -> Iterator[Farm]:
    with farm_of(redis_url, tmp_path) as farm:
        farm.start_worker()
        yield farm


@pytest.fixture
def somebody(redis_url: str) -> Iterator[Celery]:
    """A Celery app that knows nothing of promptmill."""
    yield Celery("somebody", broker=celery_url(redis_url), backend=celery_url(redis_url))
    gc.collect()  # results say goodbye to Redis, which must be there for it


def test_python_submits_and_hears_of_every_image(farm: Farm, redis_url: str, tmp_path: Path):
    async def images() -> list[FinishedImage]:
        jobs = ({"prompt": f"image {n}", "seed": n} for n in range(40))
        handle = promptmill.submit(jobs, output=str(tmp_path / "out"), broker=redis_url, **TINY)
        return [image async for image in handle]

    landed = asyncio.run(asyncio.wait_for(images(), 120))
    assert sorted(image.index for image in landed) == list(range(40))
    for image in landed:
        assert image.path is not None
        assert job_id_inside(image.path.read_bytes()) == image.id == image.job.id
        assert image.job.prompt == f"image {image.index}"


def test_any_celery_client_sends_prompts(farm: Farm, somebody: Celery, tmp_path: Path):
    """Many more than the pool has threads, sent by an app that knows but a name and a queue."""
    somebody.conf.task_routes = {"promptmill.*": {"queue": "promptmill"}}

    def send(prompt: str, **fields: Any) -> AsyncResult:
        return somebody.send_task(
            "promptmill.render", kwargs={"prompt": prompt, "output": str(tmp_path), **TINY, **fields}
        )

    results = [send(f"image {n}", seed=n) for n in range(30)]
    answers = [result.get(timeout=120) for result in results]
    assert [answer["run"] for answer in answers] == [result.id for result in results]
    wait_until(lambda: all(Path(answer["image"]).exists() for answer in answers), "all images are there")
    for answer in answers:
        assert job_id_inside(Path(answer["image"]).read_bytes()) == answer["id"]
    with pytest.raises(Exception, match="width: must be a multiple of 8, got 1030"):
        send("a cat", width=1030).get(timeout=60)
    assert farm.call("status", answers[0]["run"]).returncode == 0
    assert "Traceback" not in farm.log(0)


def test_a_task_that_was_sent_twice_is_one_image(farm: Farm, somebody: Celery, tmp_path: Path):
    kwargs = {"prompt": "a cat", "output": str(tmp_path), **TINY}
    for _ in range(2):
        result = somebody.send_task("promptmill.render", kwargs=kwargs, task_id="twice", queue="promptmill")
        assert result.get(timeout=120)["run"] == "twice"
        farm.wait_until_finished("twice")
    assert farm.run("twice")["done"] == 1
    assert len(list((tmp_path / "twice").glob("images/*/*"))) == 1


NO_MESSAGES = [b"garbage", b"", b"\xff\xfe", b"3", b"null", b"[]", b"{}", b'{"body": 3}', b'{"body": "x"}']


def test_an_item_that_is_no_message_ends_no_worker(farm: Farm, client: redis.Redis, somebody: Celery, tmp_path: Path):
    farm.wait_until_ready(0)
    client.lpush("promptmill", *NO_MESSAGES)
    kwargs = {"prompt": "a cat", "output": str(tmp_path), **TINY}
    result = somebody.send_task("promptmill.render", kwargs=kwargs, queue="promptmill")
    assert Path(result.get(timeout=120)["image"]).parent.parent.parent.exists()
    farm.wait_until_finished(result.id)
    assert client.llen("promptmill") == 0
    assert "dropped an item of Celery's queue" in farm.log(0) and "Traceback" not in farm.log(0)


def test_the_worker_takes_few_tasks_at_once(farm: Farm, somebody: Celery):
    """The rest of its threads are for the images, however many tasks there are."""
    stats = wait_until(lambda: somebody.control.inspect(timeout=1.0).stats(), "the worker hears remote control")
    (worker,) = stats.values()
    assert (worker["pool"]["max-concurrency"], worker["prefetch_count"]) == (8, 2)
