"""Packing by Celery workers: the same bytes as by one process, and a sentence where there is nobody."""

import shutil
from pathlib import Path

import pytest
import redis

from promptmill import manifest_tasks, shard_tasks
from promptmill.dataset.finish import finish
from promptmill.dataset.manifest import manifest_rows, with_failures
from promptmill.dataset.options import PackOptions
from promptmill.dataset.verify import verify
from promptmill.producer import plan as plan_module
from promptmill.shard_tasks import pack_shard
from promptmill.worker.app import make_app
from promptmill.worker.settings import WorkerSettings
from tests.dataset.conftest import FAILED, Run, encoding, run
from tests.farm import farm_of

__all__ = ["encoding", "run"]

PLAN_FILE_JOBS = 4
ASKED = ("--shard-size", "2", "--split", "train=0.5,val=0.5", "--partial", "--by-workers")


def shards_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "data").iterdir()}


@pytest.fixture(autouse=True)
def small_plan_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "JOBS_PER_FILE", PLAN_FILE_JOBS)


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
    looked = [line for line in ran.stderr.splitlines() if line.endswith(": looked at by a worker")]
    assert looked == [f"plan/{number:05d}.jsonl.zst: looked at by a worker" for number in range(3)]
    manifest = (run.folder / "manifest.parquet").read_bytes()
    assert len(told) == len(found) - 1
    assert list(verify(run.output)) == []
    for name in ("data", "packing"):
        shutil.rmtree(run.folder / name)
    for name in ("manifest.parquet", "_SUCCESS", "croissant.json", "failures.jsonl"):
        (run.folder / name).unlink(missing_ok=True)
    options = PackOptions(shard_size=2, splits={"train": 0.5, "val": 0.5})
    finish(run.output, run.plan, {}, options=options, partial=True)
    assert shards_in(run.folder) == found
    assert (run.folder / "manifest.parquet").read_bytes() == manifest


def test_every_worker_knows_the_task_however_it_is_started(redis_url: str):
    app = make_app(WorkerSettings(broker=redis_url))
    app.Worker(pool_cls="threads")  # as `celery -A promptmill.worker.app worker` makes one
    for name in (shard_tasks.TASK_NAME, manifest_tasks.TASK_NAME):
        assert name in app.tasks and app.tasks[name].acks_late


def test_the_rows_of_a_task_are_those_of_one_process(run: Run):
    broken = run.folder / run.plan.image_name(next(iter(run.plan.at([5]))).id)
    broken.write_bytes(broken.read_bytes()[:-20])
    answers = [manifest_tasks.look_at_images(run.output.url, number) for number in range(3)]
    rows = [with_failures(manifest_tasks.unpacked_rows(answer["rows"]), {FAILED: "dog"}) for answer in answers]
    assert [len(page) for page in rows] == [4, 4, 2]
    assert rows == list(manifest_rows(run.output, run.plan, {FAILED: "dog"}))
    assert [rows[1][at]["state"] for at in (0, 1)] == ["failed", "broken"]


def test_a_task_answers_with_a_sentence_where_there_is_no_plan(tmp_path: Path):
    assert "has no run.json" in manifest_tasks.look_at_images(str(tmp_path), 0)["error"]


def test_a_task_answers_with_a_sentence_where_it_cannot_pack(run: Run):
    options = PackOptions().to_json()
    piece = {"number": 0, "split": "train", "first": 0, "end": 4}
    assert "there is no " in pack_shard(run.output.url, options, piece)["error"]
    finish(run.output, run.plan, {FAILED: "dog"}, shard_size=4)
    assert pack_shard(run.output.url, PackOptions(shard_size=4).to_json(), piece) == {"shard": "data/00000.tar"}
