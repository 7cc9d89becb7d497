"""The task `promptmill.render`: what it enters, what it answers, what it refuses. Real Redis, no worker."""

import json
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from celery.exceptions import Retry

from promptmill.producer.broker import connect
from promptmill.producer.broker_url import celery_url
from promptmill.producer.layout import image_name
from promptmill.producer.queue.ledger import Ledger
from promptmill.producer.queue.queue import Claim, JobQueue
from promptmill.worker.app import make_app
from promptmill.worker.settings import WorkerSettings
from promptmill.worker.tasks import AT_ONCE, FewTasks, TaskRefused, run_name
from tests.fake_gcs import free_port
from tests.images import image_of

TINY: dict[str, Any] = {"model": "tiny-random", "steps": 2}


@pytest.fixture
def app(client: redis.Redis, redis_url: str) -> Celery:
    return make_app(WorkerSettings(broker=redis_url))


def deliver(app: Celery, task_id: str = "task-1", **kwargs: Any) -> Any:
    """Runs the task here, as a worker's pool does."""
    return app.tasks["promptmill.render"].apply(kwargs=kwargs, task_id=task_id)


def claims(client: redis.Redis) -> list[Claim]:
    queue = JobQueue(client, "test")
    return [claim for ready in queue.claimable() for claim in queue.claim(ready.shape, 100)]


def test_it_enters_a_run_of_one_job_named_after_the_task(app, client, tmp_path):
    answer = deliver(app, prompt="a {red|blue} cat", output=str(tmp_path), seed=5, priority="urgent", **TINY).get()
    (claim,) = claims(client)
    assert (claim.run, claim.output) == ("task-1", str(tmp_path))
    assert (claim.job.prompt, claim.job.seed, claim.job.num_inference_steps) == ("a {red|blue} cat", 5, 2)
    image = f"{tmp_path}/task-1/{image_name(claim.job.id)}"
    assert answer == {"run": "task-1", "id": claim.job.id, "image": image}
    assert json.loads(json.dumps(answer)) == answer
    status = Ledger(client).status("task-1")
    assert (status.images, status.priority) == (1, "urgent")


@pytest.mark.parametrize("name", ["priority", "preset", "image_format", "quality"])
@pytest.mark.parametrize("value", [[], {}, 1.5, True])
def test_an_argument_of_a_wrong_kind_is_refused_with_a_sentence(app, tmp_path, name, value):
    answer = deliver(app, prompt="a cat", output=str(tmp_path), **TINY, **{name: value})
    with pytest.raises(TaskRefused, match=f"{name}: must be "):
        answer.get()


def test_a_redis_that_evicts_is_warned_of(app, client, tmp_path, caplog):
    client.config_set("maxmemory", "100mb")
    client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        for _ in range(2):
            deliver(app, prompt="a cat", output=str(tmp_path), **TINY).get()
    finally:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", "0")
    assert len([one for one in caplog.messages if "allkeys-lru" in one]) == 1, "once"


def test_a_second_delivery_enters_nothing_and_answers_the_same(app, client, tmp_path):
    first = deliver(app, prompt="a cat", output=str(tmp_path), **TINY).get()
    assert deliver(app, prompt="a cat", output=str(tmp_path), **TINY).get() == first
    (claim,) = claims(client)
    JobQueue(client, "test").done(claim)
    image = Path(first["image"])
    image.parent.mkdir(parents=True)
    image.write_bytes(image_of(claim.job))
    assert deliver(app, prompt="a cat", output=str(tmp_path), **TINY).get() == first
    assert claims(client) == []
    assert Ledger(client).status("task-1").state == "finished"


@pytest.mark.parametrize(
    ("kwargs", "told"),
    [
        ({"prompt": "x"}, "output: is missing: where is the image to lie?"),
        ({"output": "OUT"}, "prompt: is missing"),
        ({"prompt": "", "output": "OUT"}, "prompt: is empty"),
        ({"prompt": "x", "output": "OUT", "width": 1030}, "width: must be a multiple of 8, got 1030"),
        ({"prompt": "x", "output": "OUT", "stpes": 5}, "did you mean 'steps'?"),
        ({"prompt": "x", "output": "OUT", "priority": "high"}, "high"),
        ({"prompt": "x", "output": "OUT", "preset": "nonsense"}, "nonsense"),
        ({"prompt": "x", "output": "OUT", "model": "./no-model"}, "no model './no-model'"),
        ({"prompt": "x", "output": "s3://bucket"}, "there is no storage s3://"),
        ({"prompt": 7, "output": "OUT"}, "7"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_fails_the_task_with_the_sentence(app, client, tmp_path, kwargs, told):
    given = {name: str(tmp_path) if value == "OUT" else value for name, value in kwargs.items()}
    result = deliver(app, **given)
    assert result.state == "FAILURE"
    with pytest.raises(TaskRefused) as error:
        result.get()
    assert told in str(error.value)
    assert "jobs" not in str(error.value), "the sender has no file of jobs"
    assert client.keys("promptmill:queue*") == []


def test_a_client_without_promptmill_reads_the_sentence(app, redis_url):
    """The refusal as it travels: any Celery client makes an exception of it, with the text."""
    backend = Celery("other", broker=celery_url(redis_url), backend=celery_url(redis_url)).backend
    app.backend.store_result("t", TaskRefused("width: must be a multiple of 8, got 1030"), "FAILURE")
    stored = json.loads(connect(redis_url).get("celery-task-meta-t") or "")
    stored["result"]["exc_module"] = "not.there"
    assert str(backend.exception_to_python(stored["result"])) == "width: must be a multiple of 8, got 1030"


def test_an_output_that_cannot_be_used_fails_the_task(app, client, tmp_path):
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(TaskRefused, match="file"):
        deliver(app, prompt="x", output=str(blocked), **TINY).get()
    assert client.keys("promptmill:queue*") == []


def test_an_output_that_does_not_answer_is_tried_again_later(app, client, monkeypatch):
    """The message is sent anew, for later: no thread waits for a bucket that is away."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setattr("promptmill.producer.outputs.gcs._RETRY_SECONDS", 0.3)
    task = app.tasks["promptmill.render"]
    said = {"prompt": "x", "output": "gs://bucket/prefix", **TINY}
    where = {"exchange": "", "routing_key": "promptmill"}
    task.push_request(id="t", args=[], kwargs=said, called_directly=False, delivery_info=where, retries=0)
    with pytest.raises(Retry):
        task.run(**said)
    (message,) = client.lrange("promptmill", 0, -1)
    headers = json.loads(message)["headers"]
    assert (headers["id"], headers["retries"]) == ("t", 1)
    assert headers["eta"] is not None


@pytest.mark.parametrize(
    ("task_id", "name"),
    [("3f2a-77", "3f2a-77"), ("a:b", "a-b-"), ("x" * 200, "x" * 60 + "-")],
    ids=["as it is", "a colon", "too long"],
)
def test_a_runs_name_is_the_tasks_id_or_like_it(task_id: str, name: str):
    assert run_name(task_id).startswith(name)
    assert run_name(task_id) == run_name(task_id)
    assert run_name("a:b") != run_name("a/b")


@pytest.mark.parametrize(("threads", "at_once"), [(8, AT_ONCE), (2, 1), (1, 1)])
def test_tasks_leave_threads_to_the_images(threads: int, at_once: int):
    class Pool:
        num_processes = threads

    class Consumer:
        pool = Pool
        initial_prefetch_count = threads

    consumer = Consumer()
    FewTasks(consumer)
    assert consumer.initial_prefetch_count == at_once
