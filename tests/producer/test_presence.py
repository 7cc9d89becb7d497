"""What counts as an image that is there, in a folder and in a bucket."""

import io
import os
import uuid
from pathlib import Path

import pytest
from PIL import Image

from promptmill.producer.job import Job
from promptmill.producer.layout import JOB_ID_KEY, image_name
from promptmill.producer.outputs.open import open_output
from promptmill.producer.outputs.output import Output
from promptmill.producer.presence import find_present, images_present
from tests.fake_gcs import FakeGcs
from tests.images import image_of
from tests.plans import plan_of_jobs

JOB = Job(prompt="a red apple", width=64, height=64, seed=1)
OTHER = Job(prompt="a green pear", width=64, height=64, seed=2)
WHOLE = image_of(JOB)


def by_another_tool() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    return file.getvalue()


BROKEN = {
    "empty": b"",
    "cut in the signature": WHOLE[:5],
    "cut in the job": WHOLE[:60],
    "cut in the pixels": WHOLE[:-20],
    "cut by a byte": WHOLE[:-1],
    "its end lost in a power cut": WHOLE[:-100] + bytes(100),
    "all lost in a power cut": bytes(len(WHOLE)),
}
FOREIGN = {
    "no image": b"not an image, but a text of some length",
    "another job's": image_of(OTHER),
    "another tool's": by_another_tool(),
    "another job's, cut": image_of(OTHER)[:-20],
}


@pytest.fixture
def output(output_of_each_kind: Output) -> Output:
    return output_of_each_kind


@pytest.mark.parametrize("metadata", [{}, {JOB_ID_KEY: JOB.id}], ids=["copied", "as workers write it"])
def test_a_whole_image_of_the_job_is_there(output: Output, metadata: dict[str, str]) -> None:
    output.put_once(image_name(JOB.id), WHOLE, metadata=metadata)
    present = find_present(plan_of_jobs([OTHER, JOB]), output)
    assert (list(present.indexes), present.images, present.broken, present.taken) == ([0, 1], 1, 0, 0)
    assert images_present(output) == {JOB.id}


@pytest.mark.parametrize("how", BROKEN)
def test_what_is_left_of_an_image_is_not_there(output: Output, how: str) -> None:
    output.put_once(image_name(JOB.id), BROKEN[how])
    present = find_present(plan_of_jobs([JOB]), output)
    assert (present.images, present.broken, present.taken) == (0, 1, 0)


@pytest.mark.parametrize("how", FOREIGN)
def test_what_is_something_else_is_not_there_and_is_named(output: Output, how: str) -> None:
    output.put_once(image_name(JOB.id), FOREIGN[how])
    present = find_present(plan_of_jobs([JOB]), output)
    assert (present.images, present.broken, present.taken) == (0, 0, 1)
    assert present.names == [image_name(JOB.id)]


@pytest.mark.parametrize("name", ["ID.txt", "ID.png.part", "ID", "ID.png/x.png", "ID-2.png", "../ID.png", "00/ID.png"])
def test_what_has_another_name_is_not_there(output: Output, name: str) -> None:
    folder, _, _ = image_name(JOB.id).rpartition("/")
    name = os.path.normpath(f"{folder}/{name.replace('ID', JOB.id)}")
    output.put_once(name, WHOLE)
    present = find_present(plan_of_jobs([JOB]), output)
    assert (present.images, present.broken, present.taken) == (0, 0, 0)


def test_an_image_whose_job_comes_late_in_the_file_is_there(output: Output) -> None:
    """Where something long stands before the id, as an iTXt chunk may hold."""
    at = WHOLE.index(b"iTXt") - 4
    long = b"\0\0\x40\0iTXt" + b"Comment\0" + bytes(0x4000 - 8) + b"\0\0\0\0"
    output.put_once(image_name(JOB.id), WHOLE[:at] + long + WHOLE[at:])
    assert images_present(output) == {JOB.id}


def test_a_bucket_says_by_its_checksum_that_an_object_was_changed_behind_its_metadata(
    fake_gcs: FakeGcs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake_gcs.url)
    url = fake_gcs.create_bucket(f"b{uuid.uuid4().hex}")
    output = open_output(url)
    output.put_once(image_name(JOB.id), WHOLE, metadata={JOB_ID_KEY: JOB.id})
    (listed,) = output.scan()
    # When another tool keeps the metadata, and not the bytes
    blob = output.client.bucket(url.removeprefix("gs://")).blob(listed.name)  # type: ignore[attr-defined]
    blob.metadata = dict(listed.metadata)
    blob.upload_from_string(WHOLE[:-20])
    (changed,) = output.scan()
    assert (listed.intact, changed.intact) == (True, False)
    assert images_present(output) == set()


def test_images_behind_links_are_there(tmp_path: Path) -> None:
    """A run's `images`, or a part of it, moved to another disk; and a link that leads round in a circle."""
    disk = tmp_path / "disk"
    moved = open_output(str(disk))
    for job in (JOB, OTHER):
        moved.put_once(image_name(job.id), image_of(job))
    run = tmp_path / "out" / "r"
    run.mkdir(parents=True)
    (run / "images").symlink_to(disk / "images")
    (disk / "images" / "round").symlink_to(run)
    (disk / "images" / "nothing").symlink_to(disk / "gone")
    assert images_present(open_output(str(run))) == {JOB.id, OTHER.id}


def test_many_images_are_looked_at_by_many_threads(tmp_path: Path) -> None:
    jobs = [Job(prompt="x", width=64, height=64, seed=seed) for seed in range(3000)]
    output = open_output(str(tmp_path))
    for job in jobs[::2]:
        path = tmp_path / image_name(job.id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(WHOLE.replace(JOB.id.encode(), job.id.encode()))
    present = find_present(plan_of_jobs(jobs), output)
    assert list(present.indexes) == [1, 0] * 1500
