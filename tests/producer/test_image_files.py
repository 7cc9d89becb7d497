"""Whose an image is, and whether it is whole, by a file's parts, in every format."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from promptmill.producer.image_files import HEAD_BYTES
from promptmill.producer.image_formats import IMAGE_FORMATS, PNG, Encoding, ImageFormatError, format_of
from promptmill.producer.job import Job
from promptmill.producer.layout import Look, image_name, job_of, look_inside
from promptmill.verbs.image_options import IMAGE_FORMAT_NAMES
from promptmill.worker.encode import encode

JOB = Job(prompt='a red apple, "id":"00000000000000000000000000000000"', width=64, height=64, seed=1)
OTHER = Job(prompt="a green pear", width=64, height=64, seed=2)
PIXELS = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def written(name: str, job: Job = JOB) -> bytes:
    return encode(PIXELS, job, encoding=Encoding(name))


def looked(data: bytes, name: str) -> Look:
    """How a file is looked at; no more than a few parts of it may be read."""
    reads = []

    def read(start: int, length: int) -> bytes:
        reads.append(length)
        return data[start : start + length]

    found = look_inside(JOB.id, len(data), read, IMAGE_FORMATS[name].extension)
    assert sum(reads[1:]) < HEAD_BYTES and len(reads) < 12
    return found


@pytest.mark.parametrize("name", IMAGE_FORMATS)
def test_a_whole_image_of_the_job_is_ours(name: str):
    assert looked(written(name), name) is Look.OURS


@pytest.mark.parametrize("name", IMAGE_FORMATS)
def test_what_is_cut_or_lost_its_end_is_broken(name: str):
    data = written(name)
    for broken in (b"", data[:3], data[:60], data[: len(data) // 2], data[:-20], data[:-1], bytes(len(data))):
        assert looked(broken, name) is Look.BROKEN
    assert looked(data[:-100] + bytes(100), name) is Look.BROKEN


@pytest.mark.parametrize("name", IMAGE_FORMATS)
def test_what_is_somebody_elses_is_foreign(name: str):
    IMAGE_FORMATS[name].load_plugin()
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, IMAGE_FORMATS[name].pillow)
    for foreign in (written(name, OTHER), file.getvalue(), b"a text of some length, and no image"):
        assert looked(foreign, name) is Look.FOREIGN
    other = "webp" if name == "png" else "png"
    assert looked(written(other), name) is Look.FOREIGN


@pytest.mark.parametrize("name", IMAGE_FORMATS)
def test_a_long_record_is_found_too(name: str):
    job = Job(prompt="x" * 10_000, width=64, height=64)
    data = written(name, job)
    assert look_inside(job.id, len(data), reader(data), IMAGE_FORMATS[name].extension) is Look.OURS


def reader(data: bytes) -> Callable[[int, int], bytes]:
    return lambda start, length: data[start : start + length]


@pytest.mark.parametrize("name", IMAGE_FORMATS)
def test_damaged_lengths_end_the_look(name: str):
    data = written(name)
    for at in range(8, 300, 7):
        for wrong in (b"\xff\xff\xff\xff", bytes(8)):
            damaged = data[:at] + wrong + data[at + len(wrong) :]
            assert look_inside(JOB.id, len(damaged), reader(damaged), IMAGE_FORMATS[name].extension) in Look


@pytest.mark.parametrize("name", IMAGE_FORMATS)
def test_names_follow_from_the_encoding(name: str):
    extension = Encoding(name).extension
    assert job_of(image_name(JOB.id, extension)) == JOB.id == job_of(image_name(JOB.id, extension), extension)
    assert job_of(image_name(JOB.id, extension), "gif") is None
    assert format_of(written(name)) is IMAGE_FORMATS[name]


def test_an_encoding_is_the_same_from_its_text_and_from_run_json():
    for encoding in (PNG, Encoding("jpeg"), Encoding("jpeg", 90), Encoding("webp", 1), Encoding("jxl", 100)):
        assert Encoding.parse(str(encoding)) == encoding == Encoding.of_run(encoding.to_json())
    assert Encoding.parse("") == Encoding.of_run({}) == PNG
    assert tuple(IMAGE_FORMATS) == IMAGE_FORMAT_NAMES


@pytest.mark.parametrize(
    ("name", "quality", "told"),
    [
        ("png", 90, "png is lossless: it has no quality"),
        ("gif", None, "no image format 'gif': expected one of png, webp, jpeg, jxl"),
        ("jpeg", 0, "quality must be a whole number from 1 to 100, got 0"),
        ("jpeg", True, "quality must be a whole number from 1 to 100, got True"),
    ],
)
def test_what_no_image_can_be_is_refused(name: str, quality: int | None, told: str):
    with pytest.raises(ImageFormatError, match=told):
        Encoding(name, quality)
