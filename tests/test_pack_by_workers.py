"""Packing by Celery workers: the same bytes as by one process, and a sentence where there is nobody."""

import shutil
from pathlib import Path

import pytest
import redis

from promptmill.dataset.finish import finish
from promptmill.dataset.options import PackOptions
from promptmill.dataset.verify import verify
from promptmill.shard_tasks import TASK_NAME, pack_shard
from promptmill.worker.app import make_app
from promptmill.worker.settings import WorkerSettings
from tests.dataset.conftest import FAILED, Run, encoding, run
from tests.farm import farm_of

__all__ = ["encoding", "run"]

ASKED = ("--shard-size", "2", "--split", "train=0.5,val=0.5", "--partial", "--by-workers")


def shards_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "data").iterdir()}


@pytest.mark.slow
def test_workers_pack_the_bytes_that_one_process_packs(run: Run, client: redis.Redis, redis_url: str, tmp_path: Path):
    with farm_of(redis_url, tmp_path) as farm:
        nobody = farm.call("pack", str(run.folder), *ASKED)
        assert nobody.returncode == 2 and "no worker answers: start `promptmill worker`" in nobody.stderr
        for _ in range(2):
            farm.start_worker()
        for _ in range(60):
            ran = farm.call("pack", str(run.folder), *ASKED)
            if "no worker answers" not in ran.stderr:
                break
        assert ran.returncode == 1, ran.stderr  # there is a hole
        told = [line for line in ran.stderr.splitlines() if line.endswith(": packed by a worker")]
    found = shards_in(run.folder)
    assert len(told) == len(found) - 1
    assert list(verify(run.output)) == []
    for name in ("data", "packing"):
        shutil.rmtree(run.folder / name)
    for name in ("manifest.parquet", "_SUCCESS", "croissant.json", "failures.jsonl"):
        (run.folder / name).unlink(missing_ok=True)
    options = PackOptions(shard_size=2, splits={"train": 0.5, "val": 0.5})
    finish(run.output, run.plan, {}, options=options, partial=True)
    assert shards_in(run.folder) == found


def test_every_worker_knows_the_task_however_it_is_started(redis_url: str):
    app = make_app(WorkerSettings(broker=redis_url))
    app.Worker(pool_cls="threads")  # as `celery -A promptmill.worker.app worker` makes one
    assert TASK_NAME in app.tasks and app.tasks[TASK_NAME].acks_late


def test_a_task_answers_with_a_sentence_where_it_cannot_pack(run: Run):
    options = PackOptions().to_json()
    piece = {"number": 0, "split": "train", "first": 0, "end": 4}
    assert "there is no " in pack_shard(run.output.url, options, piece)["error"]
    finish(run.output, run.plan, {FAILED: "dog"}, shard_size=4)
    assert pack_shard(run.output.url, PackOptions(shard_size=4).to_json(), piece) == {"shard": "data/00000.tar"}
