"""A run that was packed with less than it has now is packed on: more images, retried jobs, scores."""

import math
import random
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from promptmill.dataset.card import CARD
from promptmill.dataset.finish import finish
from promptmill.dataset.manifest import MANIFEST
from promptmill.dataset.options import PackOptions
from promptmill.dataset.repair import repair
from promptmill.dataset.scores import SCORES
from promptmill.dataset.verify import verify
from promptmill.producer.outputs.output import OutputConflict
from promptmill.producer.plan import Plan
from promptmill.worker.encode import encode_png
from tests.dataset.conftest import FAILED, Run, pixels
from tests.dataset.faults import truncate
from tests.dataset.test_repair import Renderer, contents

REASONS = {FAILED: "the dog ate it"}
FORMATS = ["webdataset", "parquet", "imagefolder"]
SCORED = {"aesthetic": [index / 2 for index in range(10)], "clip": [math.nan] * 9 + [1.0]}


class Killed(BaseException):
    """As a signal that ends the process."""


def job_at(plan: Plan, index: int) -> str:
    return plan.image_name(next(iter(plan.at([index]))).id)


def without(run: Run, index: int) -> bytes:
    """The run's image of an index, taken away."""
    path = run.folder / job_at(run.plan, index)
    data = path.read_bytes()
    path.unlink()
    return data


def retry(run: Run) -> None:
    """The failed job has an image after all."""
    job = run.plan.whole(next(iter(run.plan.at([FAILED]))))
    run.output.put_once(job_at(run.plan, FAILED), encode_png(pixels(job.seed), job), content_type="image/png")


@pytest.mark.parametrize("form", FORMATS)
def test_what_was_packed_in_part_is_packed_whole(run: Run, form: str):
    options = PackOptions(format=form, shard_size=3)
    data = without(run, 9)
    assert finish(run.output, run.plan, REASONS, options=options, partial=True)["missing"] == 1
    assert list(verify(run.output)) == []
    first = contents(run.folder)
    (run.folder / job_at(run.plan, 9)).write_bytes(data)
    assert finish(run.output, run.plan, REASONS, options=options) == {"done": 9, "failed": 1}
    assert list(verify(run.output)) == [] == list(verify(run.output, fast=True))
    again = contents(run.folder)
    kept = [name for name in first if name.startswith("data/00000") and again[name] == first[name]]
    assert kept and "9 images" in (run.folder / CARD).read_text()
    assert finish(run.output, run.plan, REASONS, options=options) == {"done": 9, "failed": 1}
    assert contents(run.folder) == again


def test_shards_are_those_that_are_packed_at_once(run: Run, tmp_path: Path):
    data = without(run, 9)
    finish(run.output, run.plan, REASONS, shard_size=3, partial=True)
    (run.folder / job_at(run.plan, 9)).write_bytes(data)
    finish(run.output, run.plan, REASONS, shard_size=3)
    found = {path.name: path.read_bytes() for path in (run.folder / "data").iterdir()}
    for name in [*(f"data/{name}" for name in found), MANIFEST, "_SUCCESS", "croissant.json", "failures.jsonl"]:
        (run.folder / name).unlink()
    finish(run.output, run.plan, REASONS, shard_size=3)
    assert {path.name: path.read_bytes() for path in (run.folder / "data").iterdir()} == found


def test_a_job_that_was_retried_is_packed_too(run: Run):
    finish(run.output, run.plan, REASONS, shard_size=3)
    retry(run)
    assert finish(run.output, run.plan, {}, shard_size=3) == {"done": 10}
    assert list(verify(run.output)) == []
    assert (run.folder / "failures.jsonl").read_text() == "" and "Every job has its image" in (
        run.folder / CARD
    ).read_text()


def test_packing_that_was_stopped_while_it_went_on_goes_on(run: Run, monkeypatch: pytest.MonkeyPatch):
    data = without(run, 9)
    finish(run.output, run.plan, REASONS, shard_size=3, partial=True)
    (run.folder / job_at(run.plan, 9)).write_bytes(data)
    put_file, calls = type(run.output).put_file, []

    def stopped(self: object, name: str, *args: object, **kwargs: object) -> object:
        calls.append(name)
        if len(calls) == 2:
            raise Killed
        return put_file(self, name, *args, **kwargs)  # type: ignore[arg-type]

    for _ in range(2):
        calls.clear()
        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr(type(run.output), "put_file", stopped)
            finish(run.output, run.plan, REASONS, shard_size=3)
    finish(run.output, run.plan, REASONS, shard_size=3)
    assert list(verify(run.output)) == []


def test_an_image_that_became_another_is_a_conflict_and_nothing_is_replaced(run: Run):
    data = without(run, 9)
    finish(run.output, run.plan, REASONS, shard_size=3, partial=True)
    (run.folder / job_at(run.plan, 9)).write_bytes(data)
    job = run.plan.whole(next(iter(run.plan.at([0]))))
    (run.folder / job_at(run.plan, 0)).write_bytes(encode_png(np.zeros((64, 64, 3), np.uint8), job))
    before = contents(run.folder)
    with pytest.raises(OutputConflict):
        finish(run.output, run.plan, REASONS, shard_size=3)
    assert contents(run.folder) == before


def test_a_card_that_was_edited_stays(run: Run):
    data = without(run, 9)
    finish(run.output, run.plan, REASONS, partial=True, licence="cc0-1.0")
    card = (run.folder / CARD).read_text()
    (run.folder / CARD).write_text(card.replace("# cats", "# My cats"))
    (run.folder / job_at(run.plan, 9)).write_bytes(data)
    finish(run.output, run.plan, REASONS)
    assert (run.folder / CARD).read_text() == card.replace("# cats", "# My cats")


def test_scores_are_columns_of_the_manifest(run: Run):
    finish(run.output, run.plan, REASONS, shard_size=3, scores=SCORED)
    table = pq.read_table(run.folder / MANIFEST)
    assert table["score_aesthetic"].to_pylist() == SCORED["aesthetic"]
    assert table["score_clip"].to_pylist() == [None] * 9 + [1.0]
    assert list(verify(run.output)) == []
    before = contents(run.folder)
    finish(run.output, run.plan, REASONS, shard_size=3)
    finish(run.output, run.plan, REASONS, shard_size=3, scores=SCORED)
    assert contents(run.folder) == before


def test_scores_that_come_later_change_the_manifest_and_no_shard(run: Run):
    finish(run.output, run.plan, REASONS, shard_size=3)
    first = contents(run.folder)
    finish(run.output, run.plan, REASONS, shard_size=3, scores=SCORED)
    changed = {name for name, data in contents(run.folder).items() if first.get(name) != data}
    assert changed == {MANIFEST, SCORES, "croissant.json", "packing/manifest.json", "_SUCCESS"}
    assert "score_aesthetic" in pq.read_schema(run.folder / MANIFEST).names
    assert list(verify(run.output)) == []


@pytest.mark.parametrize("names", [[SCORES], [MANIFEST], ["images", "data/00000.tar"]], ids=str)
def test_a_run_with_scores_is_mended_to_the_same_bytes(run: Run, names: list[str]):
    finish(run.output, run.plan, REASONS, shard_size=3, scores=SCORED)
    before = contents(run.folder)
    for name in names:
        if name == "images":
            truncate(run.folder / "images", random.Random(1))
        else:
            (run.folder / name).write_bytes(before[name][:-9])
    assert {finding.name for finding in verify(run.output)}
    assert [step for step in repair(run.output, Renderer(run.output)) if step.action == "left"] == []
    assert contents(run.folder) == before


def test_the_cards_counts_follow_a_repair_that_was_accepted(run: Run):
    finish(run.output, run.plan, REASONS, shard_size=3, licence="cc0-1.0")
    retry(run)
    list(repair(run.output, Renderer(run.output), accept=True))
    card = (run.folder / CARD).read_text()
    assert "10 images, each rendered" in card and "Every job has its image" in card and 'license: "cc0-1.0"' in card
    assert list(verify(run.output)) == []
