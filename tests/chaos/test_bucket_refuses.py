"""Buckets that refuse: a real worker, Google's own client, a real server, and a proxy that says 403 and 401."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.fake_gcs import FakeGcs
from tests.farm import Farm, farm_of, wait_until
from tests.gcs_wire import Wire, serve

pytestmark = pytest.mark.slow


@pytest.fixture
def wire(fake_gcs: FakeGcs) -> Iterator[Wire]:
    with serve(fake_gcs.port) as wire:
        yield wire


@pytest.fixture
def farm(client: redis.Redis, redis_url: str, wire: Wire, tmp_path: Path) -> Iterator[Farm]:
    with farm_of(redis_url, tmp_path) as farm:
        farm.environ["STORAGE_EMULATOR_HOST"] = wire.url
        yield farm


def problems(farm: Farm) -> dict[str, str]:
    workers = farm.status("good")["workers"]
    return workers[0]["problems"] if workers else {}


def test_what_a_bucket_refuses_waits_and_is_shown_and_other_runs_go_on(farm: Farm, wire: Wire, fake_gcs: FakeGcs):
    """401 and 403 of one bucket each, for a while; a third one is fine."""
    statuses = {"forbidden": 403, "unauthorized": 401, "good": 0}
    outputs = {run: fake_gcs.create_bucket(f"{run}-{uuid.uuid4().hex}") for run in statuses}
    for run, output in outputs.items():
        farm.submit([f"{run} {n}" for n in range(5)], output, run, "--steps", "2")
    refusing = {output.removeprefix("gs://"): statuses[run] for run, output in outputs.items()}

    def refuse(request: str, body: bytes) -> int | None:
        return next((status for bucket, status in refusing.items() if f"/b/{bucket}/" in request), None)

    wire.refuse = refuse
    farm.start_worker()
    bad = {outputs["forbidden"], outputs["unauthorized"]}
    wait_until(lambda: bad <= problems(farm).keys(), "status says which buckets refuse")
    assert all("credentials" in problems(farm)[url] for url in bad)
    assert farm.wait_until_finished("good")["done"] == 5
    assert [(farm.run(run)["done"], farm.run(run)["failed"]) for run in ("forbidden", "unauthorized")] == [(0, 0)] * 2
    wire.refuse = lambda request, body: None
    for run in ("forbidden", "unauthorized"):
        over = farm.wait_until_finished(run)
        assert (over["done"], over["failed"]) == (5, 0)
    wait_until(lambda: not problems(farm), "nothing is wrong any more")


def test_one_object_that_a_bucket_refuses_is_failed_and_the_others_land(farm: Farm, wire: Wire, fake_gcs: FakeGcs):
    output = fake_gcs.create_bucket(f"b{uuid.uuid4().hex}")
    farm.submit([f"prompt {n}" for n in range(6)], output, "good", "--steps", "2")
    wire.refuse = lambda request, body: 403 if request.startswith("POST /upload/") and b"prompt 3" in body else None
    farm.start_worker()
    run = farm.wait_until_finished("good")
    assert (run["done"], run["failed"]) == (5, 1)
    (failure,) = farm.status("good")["runs"][0]["failures"]
    assert failure["index"] == 3
    assert "the output takes other images, and not this one" in failure["reason"]
