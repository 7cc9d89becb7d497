"""Real processes of ours, a real Redis and a bucket, killed: shortly with the slow tests, else `pytest -m soak`.

PROMPTMILL_SOAK_MINUTES says for how long. And what the soak counts is counted right.
"""

import json
import os
import random
import subprocess
import sys
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from promptmill.producer.job import Job
from promptmill.producer.layout import image_name
from promptmill.producer.outputs.open import open_output
from tests.chaos.soak.causes import UNEXPLAINED, Event, after_sigkill, after_sigterm, causes, read_begun
from tests.chaos.soak.journal import Journal, doubled, written_over
from tests.chaos.soak.tally import Tally, add_to
from tests.fake_gcs import FakeGcs
from tests.gcs_wire import serve

ROOT = Path(__file__).parents[2]
MINUTES = float(os.environ.get("PROMPTMILL_SOAK_MINUTES", "60"))
JOB = str(Job(prompt="a", seed=1).id)


def soak(minutes: float, jobs: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.chaos.soak", "--minutes", str(minutes), "--jobs", str(jobs)]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    report: dict[str, Any] = json.loads(told.stdout)
    assert (report["lost"], report["doubled"], report["broken"]) == ([], [], [])
    assert report["runs"] > 0 and report["sigkills"] > 0
    return report


@pytest.mark.soak
@pytest.mark.timeout(48 * 3600)
def test_nothing_is_lost_or_doubled_in_a_long_soak():
    soak(MINUTES, jobs=60)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_nothing_is_lost_or_doubled_in_a_short_soak():
    soak(0.5, jobs=20)


@pytest.fixture
def bucket(fake_gcs: FakeGcs, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A journal, and a bucket that is written to through its proxy."""
    with serve(fake_gcs.port) as wire:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", wire.url)
        yield Journal(wire, random.Random(1)), open_output(fake_gcs.create_bucket(f"b{uuid.uuid4().hex}")).child("r")


def there(output: Any) -> dict[str, str]:
    return {blob.name: str(blob.generation) for blob in output.client.list_blobs(output.bucket)}


def test_an_image_that_is_written_once_is_not_doubled_whoever_tries_again(bucket):
    journal, output = bucket
    name = image_name(JOB)  # type: ignore[arg-type]
    for _ in range(2):
        output.put_once(name, b"image")
    assert [(write.status, write.precondition) for write in journal.writes] == [(200, "0"), (412, "0")]
    assert doubled(journal.writes, there(output)) == []


def test_an_upload_whose_answer_is_lost_is_counted_and_is_not_doubled(bucket):
    journal, output = bucket
    journal.lose_answers(60.0)
    for number in range(4):
        output.put_once(image_name(Job(prompt="a", seed=number).id), b"image")
    assert journal.injected["answers to uploads lost"] > 0
    assert doubled(journal.writes, there(output)) == []


def test_images_that_are_written_over_or_by_nobody_are_doubled(bucket, fake_gcs, monkeypatch):
    journal, output = bucket
    name = image_name(JOB)  # type: ignore[arg-type]
    blob = output.client.bucket(output.bucket).blob(f"r/{name}")
    for _ in range(2):
        blob.upload_from_string(b"image")  # without a precondition
    (twice, *over) = doubled(journal.writes, there(output))
    assert twice == f"r/{name} was written 2 times"
    assert any("over generation None" in one for one in over)
    assert any("is generation" in one for one in doubled([], there(output)))


def test_what_pack_makes_anew_is_counted_by_kind(bucket):
    journal, output = bucket
    for text in (b"a", b"b"):
        output.put_once("data/00000.tar", text, broken=lambda existing: True)
    assert written_over(journal.writes) == Counter({"data": 1})
    assert doubled(journal.writes, there(output)) == []


def test_each_rendering_after_the_first_has_its_cause():
    begun = read_begun(f"1.0 11 {JOB}\n5.0 12 {JOB}\n9.0 13 {JOB}\n12.0 14 {JOB}\n12.5 15 {JOB[:9]}")
    events = [Event(2.0, "SIGKILL worker", 11), Event(3.0, "Redis wiped"), Event(6.0, "Redis wiped")]
    assert causes(begun, events) == Counter({"its worker was killed": 1, "Redis was wiped": 1, UNEXPLAINED: 1})


def test_times_are_from_the_fault_until_another_worker_begins():
    begun = read_begun(f"1.0 11 {JOB}\n5.5 12 {JOB}")
    assert after_sigkill(begun, [Event(2.0, "SIGKILL worker", 11)]) == [3.5]
    assert after_sigterm(begun, [Event(5.0, "SIGTERM", 11), Event(6.0, "SIGTERM", 11)]) == [0.5]


def test_sessions_add_up_in_a_file(tmp_path):
    file = tmp_path / "soak.json"
    one = Tally(["a"], 1.5, Counter({"SIGKILL worker": 2, "SIGKILL pack": 1}), jobs=3, after_sigkill_s=[1.0])
    other = Tally(["b"], 1.0, Counter({"SIGKILL worker": 5}), lost=["r0/1"], after_sigkill_s=[3.0])
    assert add_to(file, one).is_good
    told = add_to(file, other).told()
    assert (told["sessions"], told["minutes"], told["sigkills"], told["jobs"]) == (["a", "b"], 2.5, 8, 3)
    assert told["after_sigkill_s"]["median"] == 2.0
    assert told["lost"] == ["r0/1"] and not add_to(file, Tally()).is_good
