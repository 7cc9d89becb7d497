"""Whole numbers that a parser has read as floats: exact ones are taken, those that may have been others are refused."""

import decimal
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from promptmill.producer.errors import PromptFileError, PromptFileErrors
from promptmill.producer.plan import PlanOptions, plan_run

LAST = 2**53 - 1
ROUNDED = "must be written as a whole number: "


def seeds(path: Path, **options: Any) -> list[int]:
    with plan_run([str(path)], PlanOptions(**options)) as plan:
        return [plan.whole(job).seed for job in plan]


def refused(path: Path, **options: Any) -> PromptFileError:
    with pytest.raises(PromptFileErrors) as caught:
        seeds(path, **options)
    (error,) = caught.value.errors
    return error


@pytest.fixture
def write(tmp_path: Path):
    def write(suffix: str, numbers: list[str]) -> Path:
        path = tmp_path / f"a{suffix}"
        if suffix == ".jsonl":
            path.write_text("".join(f'{{"prompt": "x", "seed": {number}}}\n' for number in numbers))
        else:
            path.write_text("prompt,seed\n".replace(",", "\t" if suffix == ".tsv" else ","))
            with path.open("a") as file:
                file.writelines(f"x{',' if suffix == '.csv' else chr(9)}{number}\n" for number in numbers)
        return path

    return write


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv"])
def test_exact_floats_are_whole_numbers(write, suffix: str):
    exact = ["7.0", "1e3", f"{LAST}.0", str(2**64 - 1), "9007199254740993"]
    assert seeds(write(suffix, exact)) == [7, 1000, LAST, 2**64 - 1, 9007199254740993]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv"])
@pytest.mark.parametrize("number", ["9007199254740993.0", "1.2345678901234568e+18", "1e17", f"{2**53}.0"])
def test_floats_that_may_have_been_others_are_refused_with_line_and_field(write, suffix: str, number: str):
    error = refused(write(suffix, ["7", number]))
    assert (error.line, error.field) == (2 if suffix == ".jsonl" else 3, "seed")
    assert error.problem.startswith(ROUNDED)
    assert error.problem.endswith("is a float, and those beyond 2^53 are rounded")


def test_a_first_of_several_images_is_refused_as_well(write):
    from promptmill.producer.prompts.expand import Expansion

    path = write(".jsonl", ["9007199254740993.0"])
    assert refused(path, expansion=Expansion(images_per_prompt=2)).field == "seed"


def parquet(path: Path, values: list[Any], kind: Any) -> Path:
    out = io.BytesIO()
    pq.write_table(pa.table({"prompt": ["x"] * len(values), "seed": pa.array(values, kind)}), out)
    path.write_bytes(out.getvalue())
    return path


def test_columns_of_floats_decimals_and_all_widths_are_read(tmp_path: Path):
    """pandas makes a column of doubles where a cell of a column of whole numbers is empty."""
    path = tmp_path / "a.parquet"
    assert seeds(parquet(path, [7.0, None, LAST], pa.float64())) == [7, 1, LAST]
    assert seeds(parquet(path, [7.0, 2**24 - 1], pa.float32())) == [7, 2**24 - 1]
    assert seeds(parquet(path, [2**64 - 1], pa.uint64())) == [2**64 - 1]
    assert seeds(parquet(path, [decimal.Decimal(2**64 - 1)], pa.decimal128(20, 0))) == [2**64 - 1]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (float(2**53), pa.float64()),
        (2.0**24, pa.float32()),
        (np.float16(2048), pa.float16()),
    ],
    ids=["double", "float", "half"],
)
def test_a_column_that_rounds_is_refused_where_it_may_have(tmp_path: Path, value: Any, kind: Any):
    error = refused(parquet(tmp_path / "a.parquet", [type(value)(7), value], kind))
    assert (error.line, error.field) == (2, "seed")
    assert error.problem.startswith(ROUNDED)


def test_pandas_frames_with_a_missing_seed_are_read(tmp_path: Path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"prompt": ["a", "b"], "seed": [7, None]})
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    for path in sorted(tmp_path.iterdir()):
        assert seeds(path) == [7, 1], path
