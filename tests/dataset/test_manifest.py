"""The manifest: a row per index, of what was asked for and what came of it."""

import hashlib
import io
from pathlib import Path

import pandas
import pyarrow.parquet as pq
import pytest

from promptmill.dataset.finish import finish
from promptmill.dataset.manifest import SCHEMA, write_manifest
from promptmill.dataset.manifest_text import FORMS, rows_of_run
from promptmill.producer.layout import image_name
from promptmill.producer.outputs.open import open_output
from promptmill.producer.plan import PlanOptions, plan_jobs
from promptmill.producer.presence import find_present
from promptmill.producer.prompts.expand import Expansion
from promptmill.worker.encode import encode_png
from tests.dataset.conftest import FAILED, REPEATED, Run


def rows(run: Run, file: Path, failures: dict[int, str]) -> list[dict[str, object]]:
    write_manifest(file, run.output, run.plan, failures)
    return pq.read_table(file).to_pylist()


def test_each_index_has_a_row_and_rows_of_one_job_share_its_image(run: Run, tmp_path: Path):
    found = rows(run, tmp_path / "m.parquet", {FAILED: "the dog ate it"})
    assert [row["index"] for row in found] == list(range(10))
    assert found[REPEATED]["path"] == found[2]["path"] == image_name(run.plan.whole(next(run.plan.since(2))).id)
    assert [row["state"] for row in found] == ["done"] * FAILED + ["failed"] + ["done"] * 5
    assert found[FAILED]["reason"] == "the dog ate it"
    assert (found[3]["prompt"], found[3]["seed"], found[3]["model"]) == ("cat 3", 3, "tiny-random")


def test_digests_are_those_of_the_file(run: Run, tmp_path: Path):
    for row in rows(run, tmp_path / "m.parquet", {}):
        if row["path"]:
            data = (run.folder / str(row["path"])).read_bytes()
            assert (row["bytes"], row["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())


def test_what_is_absent_is_missing_and_what_is_no_image_of_the_job_is_broken(run: Run, tmp_path: Path):
    by_index = {planned.index: run.folder / image_name(planned.id) for planned in run.plan}
    by_index[0].unlink()
    by_index[1].write_bytes(by_index[3].read_bytes())
    by_index[5].write_bytes(by_index[5].read_bytes()[:-40])
    by_index[6].write_bytes(b"")
    found = rows(run, tmp_path / "m.parquet", {})
    states = [str(row["state"]) for row in found]
    assert states == ["missing", "broken", "done", "done", "missing", "broken", "broken", "done", "done", "done"]
    assert "is the image of another job" in str(found[1]["reason"])
    assert "is truncated" in str(found[5]["reason"]) and "is empty" in str(found[6]["reason"])


def test_it_says_what_marks_an_image_and_takes_images_of_before_there_were_marks(run: Run, tmp_path: Path):
    planned = next(iter(run.plan))
    job, name = run.plan.whole(planned), image_name(planned.id)
    (run.folder / name).write_bytes(encode_png(run.pixels[0], job, {"watermark": "sdxl-dwtdct"}, xmp=False))
    found = rows(run, tmp_path / "m.parquet", {})
    assert [row["marks"] for row in found[:2]] == [["watermark"], ["xmp"]]
    assert found[0]["state"] == "done"
    assert find_present(run.plan, run.output).images == 8
    assert found[FAILED]["marks"] is None


def test_it_says_who_rendered_an_image_in_how_long_and_what_checks_found(run: Run, tmp_path: Path):
    planned = next(iter(run.plan))
    job, name = run.plan.whole(planned), image_name(planned.id)
    safety = {"flagged": True, "checks": {"mine": {"flagged": True, "score": 0.5}}, "shown": "keep"}
    run.output.move(name, "before.png")
    data = encode_png(run.pixels[0], job, {"safety": safety})
    run.output.put_once(name, data, metadata={"worker": "promptmill-1@here", "render_s": "1.250"})
    first, second = rows(run, tmp_path / "m.parquet", {})[:2]
    if run.output.metadata(name):  # else a file system without extended attributes
        assert (first["worker"], first["render_s"]) == ("promptmill-1@here", 1.25)
    assert (first["flagged"], first["checks"]) == (True, '{"mine":{"flagged":true,"score":0.5}}')
    assert [second[name] for name in ("worker", "render_s", "flagged", "checks")] == [None] * 4


@pytest.mark.parametrize("packed", [True, False])
def test_it_is_read_by_pandas_as_json_lines_and_as_csv(run: Run, packed: bool):
    if packed:
        finish(run.output, run.plan, {FAILED: "the dog ate it"}, shard_size=4)
    for form in ("jsonl", "csv"):
        text = io.StringIO("\n".join(FORMS[form](rows_of_run(run.output, lambda: {FAILED: "the dog ate it"}))))
        table: pandas.DataFrame = pandas.read_csv(text) if form == "csv" else pandas.read_json(text, lines=True)
        assert list(table["index"]) == list(range(10))
        assert list(table["prompt"])[:2] == ["cat 0", "cat 1"]
        assert table["reason"][FAILED] == "the dog ate it"
        assert table["sha256"][0] == hashlib.sha256((run.folder / table["path"][0]).read_bytes()).hexdigest()


def test_a_row_group_is_a_file_of_the_plan(run: Run, tmp_path: Path):
    write_manifest(tmp_path / "m.parquet", run.output, run.plan, {})
    file = pq.ParquetFile(tmp_path / "m.parquet")
    assert file.num_row_groups == len(run.plan.pages)
    assert file.schema_arrow.equals(SCHEMA)


def test_what_was_chosen_stands_beside_its_template(tmp_path: Path):
    output = open_output(str(tmp_path / "out"))
    options = PlanOptions(defaults={"model": "tiny-random"}, expansion=Expansion(combinatorial=True))
    with plan_jobs([{"prompt": "a {red|blue} cat", "negative_prompt": "x"}], options) as plan:
        write_manifest(tmp_path / "m.parquet", output, plan, {})
    found = pq.read_table(tmp_path / "m.parquet").to_pylist()
    assert [row["prompt"] for row in found] == ["a red cat", "a blue cat"]
    assert {row["template"] for row in found} == {'{"prompt":"a {red|blue} cat"}'}
    assert [row["choices"] for row in found] == ['{"prompt":["red"]}', '{"prompt":["blue"]}']
