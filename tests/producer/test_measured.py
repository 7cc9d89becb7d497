"""What bench measured is kept, and an estimate from it names it."""

import dataclasses
import json
from pathlib import Path

import pytest

from promptmill.producer.estimate import Work, work_of
from promptmill.producer.job import Job, Shape
from promptmill.producer.measured import BenchRow, bench_file, bench_rate, keep, kept
from promptmill.producer.models import POCKET

ROW = BenchRow("org/m", 1024, 1024, True, 40, 4, "NVIDIA H100", 2, "bfloat16", 4.0, "2026-11-28")
JOB = Work(Shape("org/m", 1024, 1024, True), 40)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_a_later_measurement_replaces_the_one_before():
    other = dataclasses.replace(ROW, width=512)
    keep([ROW, other])
    keep([faster := dataclasses.replace(ROW, images_per_s=5.0, on="2026-11-29")])
    assert kept() == [other, faster]


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"a": 1}', '[{"model": "x"}]', "null"])
def test_a_file_that_is_not_ours_is_as_none(text: str):
    bench_file().parent.mkdir(parents=True)
    bench_file().write_text(text)
    assert kept() == []
    keep([ROW])
    assert kept() == [ROW]


def test_one_row_of_another_version_is_left_out():
    keep([ROW])
    rows = json.loads(bench_file().read_text())
    bench_file().write_text(json.dumps([*rows, {**rows[0], "new": 1}]))
    assert kept() == [ROW]


def test_a_folder_that_cannot_be_written_loses_the_measurement_and_nothing_else(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc")
    assert keep([ROW]) is None


def test_the_same_work_takes_what_was_measured():
    found = bench_rate({JOB: 100}, [ROW], None)
    assert found is not None
    assert (found.device, found.devices) == ("NVIDIA H100", 2) and found.images_per_s == pytest.approx(4.0)
    assert found.basis == (
        "promptmill bench of 2026-11-28: 4 images/s at 1024x1024, 4 per device and batch, "
        "on 2 devices (NVIDIA H100, bfloat16); scaled by the work"
    )
    assert bench_rate({JOB: 100}, [ROW], 8).images_per_s == pytest.approx(16.0)  # type: ignore[union-attr]


def test_other_steps_and_sizes_are_scaled_by_the_work_from_the_nearest():
    small = dataclasses.replace(ROW, width=512, height=512, images_per_s=20.0)
    half = Work(JOB.shape, 20)
    found = bench_rate({half: 1}, [small, ROW], None)
    assert found is not None
    assert found.images_per_s == pytest.approx(4.0 * JOB.tera / half.tera)
    pocket = dataclasses.replace(ROW, model=POCKET, width=64, height=64, calls=20, devices=1)
    wide = work_of(Job(prompt="x", model=POCKET, width=128, height=64, num_inference_steps=10))
    assert bench_rate({wide: 1}, [pocket], None).images_per_s == pytest.approx(2.0)  # type: ignore[union-attr]


def test_of_equal_settings_the_fastest_batch_counts():
    slow = dataclasses.replace(ROW, per_device_batch=1, images_per_s=3.0)
    assert bench_rate({JOB: 1}, [ROW, slow], None).images_per_s == pytest.approx(4.0)  # type: ignore[union-attr]


def test_a_model_or_a_guidance_that_was_not_measured_has_no_estimate():
    for other in (Shape("org/other", 1024, 1024, True), Shape("org/m", 1024, 1024, False)):
        assert bench_rate({JOB: 1, Work(other, 40): 1}, [ROW], None) is None
    assert bench_rate({JOB: 1}, [], None) is None


def test_two_kinds_of_device_are_not_one_estimate():
    other = dataclasses.replace(ROW, model="org/n", device="cpu")
    works = {JOB: 1, Work(Shape("org/n", 1024, 1024, True), 40): 1}
    assert bench_rate(works, [ROW, other], None) is None
