"""Data frames mean what the file means that their library writes of them."""

from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from promptmill.producer.errors import PromptFileError
from promptmill.producer.plan import Plan, plan_jobs, plan_run
from promptmill.producer.prompts.frames import is_frame, read_frame
from tests.plans import jobs_in

pandas = pytest.importorskip("pandas")

ROWS: list[dict[str, Any]] = [
    {"prompt": "a cat", "seed": 5, "width": 64, "class": "cat", "taken": date(2026, 1, 2)},
    {"prompt": "a dog", "seed": None, "width": 64, "class": None, "taken": None},
    {"prompt": "a cow", "seed": 2**40, "width": 128, "class": "cow", "taken": None},
]


def plan_of(frame: Any) -> Plan:
    return plan_jobs(read_frame(frame))


@pytest.mark.parametrize("kind", ["pandas", "pandas, nullable", "pandas, arrow", "arrow"])
def test_a_frame_means_what_its_parquet_file_means(kind: str, tmp_path: Path):
    frame = pandas.DataFrame(ROWS)
    frame.to_parquet(tmp_path / "rows.parquet")
    frame = {
        "pandas": lambda: frame,
        "pandas, nullable": frame.convert_dtypes,
        "pandas, arrow": lambda: pandas.read_parquet(tmp_path / "rows.parquet", dtype_backend="pyarrow"),
        "arrow": lambda: pa.Table.from_pylist(ROWS),
    }[kind]()
    assert is_frame(frame)
    with plan_of(frame) as ours, plan_run([str(tmp_path / "rows.parquet")]) as theirs:
        assert jobs_in(ours) == jobs_in(theirs)
        labels = [job.labels or {} for job in ours]
        assert [told.get("class") for told in labels] == ["cat", None, "cow"]
        assert str(labels[0]["taken"]).startswith("2026-01-02")
        assert [set(told) for told in labels[1:]] == [set(), {"class"}]


def test_a_long_frame_comes_in_order():
    frame = pandas.DataFrame({"prompt": [f"cat {n}" for n in range(10_000)]})
    with plan_of(frame) as plan:
        assert [job.prompt for job in jobs_in(plan)] == list(frame["prompt"])


def test_a_wrong_row_is_told_with_its_number_and_a_mistyped_column_at_once():
    with pytest.raises(PromptFileError, match="jobs:2: width: must be a multiple of 8, got 65"):
        plan_of(pandas.DataFrame({"prompt": ["a", "b"], "width": [64, 65]}))
    with pytest.raises(PromptFileError, match="widht: is not a field of a job; did you mean 'width'"):
        plan_of(pandas.DataFrame({"prompt": ["a"], "widht": [64]}))


@pytest.mark.parametrize("other", ["a cat", ["a cat"], {"prompt": "a cat"}, None, 3])
def test_other_things_are_no_frames(other: object):
    assert not is_frame(other)
