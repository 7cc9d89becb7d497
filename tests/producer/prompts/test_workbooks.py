"""Excel's workbooks, as openpyxl and pandas write them, and the traps of sheets."""

import datetime
from pathlib import Path
from typing import Any

import pytest

from promptmill.producer.errors import PromptFileError
from promptmill.producer.plan import PlanOptions, plan_run
from promptmill.producer.prompts.columns import Reading
from tests.producer.prompts.formats import PACK, prompts, read, said

openpyxl = pytest.importorskip("openpyxl")


@pytest.fixture
def sheet(tmp_path: Path):
    def write(*rows: list[Any], name: str = "a.xlsx") -> Path:
        book = openpyxl.Workbook()
        for row in rows:
            book.active.append(row)
        book.create_sheet("notes").append(["prompt", "of another sheet"])
        book.save(tmp_path / name)
        return tmp_path / name

    return write


def told(path: Path) -> list[str]:
    errors = [row for row in read(path) if isinstance(row, PromptFileError)]
    return [f"{error.line}: {error.field}: {error.problem}" for error in errors]


def test_the_first_sheet_is_read_with_its_row_numbers(sheet):
    path = sheet([], ["prompt", "seed", "class", None], ["a red apple", 7, "fruit"], [], ["a pear", 8.0, None, None])
    rows = read(path)
    assert [row.line for row in rows] == [3, 5]
    assert said(rows) == [
        ({"prompt": "a red apple", "seed": 7}, {"class": "fruit"}),
        ({"prompt": "a pear", "seed": 8.0}, {}),
    ]


@pytest.mark.parametrize("packed", PACK)
def test_packed_workbooks_are_read(sheet, packed: str):
    path = sheet(["prompt"], ["a pear"])
    other = path.with_name(f"b.xlsx{packed}")
    other.write_bytes(PACK[packed](path.read_bytes()))
    assert prompts(read(other)) == ["a pear"]


def test_text_that_holds_numbers_is_what_it_says(sheet):
    rows = read(
        sheet(
            ["prompt", "seed", "crops_coords_top_left", "prompt_weighting"],
            ["1984", "7", "0,16", True],
            [1984, "12345678901234567890"],
        )
    )
    (first, _), (second, _) = said(rows)
    assert first == {"prompt": "1984", "seed": 7, "crops_coords_top_left": [0, 16], "prompt_weighting": True}
    assert second == {"prompt": "1984", "seed": 12345678901234567890}


def test_dates_are_labels_and_no_fields(sheet):
    day, moment = datetime.date(2026, 2, 3), datetime.datetime(2026, 2, 3, 4, 5)
    path = sheet(["prompt", "day", "at", "took"], ["a pear", day, moment, datetime.time(4, 5)])
    assert said(read(path)) == [
        ({"prompt": "a pear"}, {"day": "2026-02-03", "at": "2026-02-03T04:05:00", "took": "04:05:00"})
    ]
    path = sheet(["prompt", "seed"], [day, 7], ["a pear", moment])
    assert told(path) == [
        "2: prompt: is a date in the sheet (2026-02-03), as Excel makes of text such as 1-2: format it as text",
        "3: seed: is a date in the sheet (2026-02-03T04:05:00), as Excel makes of text such as 1-2: format it as text",
    ]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (["#N/A"], "2: prompt: is #N/A: a formula of the sheet has no value"),
        (["x", 1, 2, "y"], "2: None: has 4 cells, but the header has 2"),
    ],
)
def test_wrong_rows_are_told(sheet, row: list[Any], problem: str):
    assert told(sheet(["prompt", "seed"], row, ["a pear"])) == [problem]


def test_line_ends_within_a_cell_are_newlines(sheet):
    assert prompts(read(sheet(["prompt"], ["a pear_x000D_\non a plate"], ["a_x_b"]))) == ["a pear\non a plate", "a_x_b"]


def test_a_sheet_without_prompts_names_what_there_is(sheet):
    with pytest.raises(PromptFileError, match=r"a.xlsx:1: prompt: no such column \(there are: words, seed\)"):
        read(sheet(["words", "seed"], ["x", 1]))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"prompt,seed\nx,1\n", b"\xd0\xcf\x11\xe0" * 200])
def test_what_is_no_workbook_is_told(tmp_path: Path, content: bytes):
    (tmp_path / "a.xlsx").write_bytes(content)
    with pytest.raises(PromptFileError, match=r"a.xlsx: is not an Excel workbook \(.xlsx\): "):
        read(tmp_path / "a.xlsx")


def test_damage_anywhere_is_told_or_read(sheet):
    path = sheet(["prompt", "seed"], *[[f"a pear {n}", n] for n in range(50)])
    whole = path.read_bytes()
    for at in range(0, len(whole), 97):
        path.write_bytes(whole[:at] + b"\xff\x00\xff" + whole[at + 3 :])
        try:
            assert all(isinstance(row, PromptFileError) or row.fields for row in read(path))
        except PromptFileError as error:
            assert str(error).startswith(f"{path}")


def test_pandas_writes_what_is_read(tmp_path: Path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {"prompt": ["a pear", "a plum"], "seed": [7, None], "when": pandas.to_datetime(["2026-02-03"] * 2)}
    )
    frame.to_excel(tmp_path / "a.xlsx")  # with its index, a column without a name
    assert said(read(tmp_path / "a.xlsx")) == [
        ({"prompt": "a pear", "seed": 7}, {"when": "2026-02-03"}),
        ({"prompt": "a plum"}, {"when": "2026-02-03"}),
    ]


def test_other_sheets_are_warned_of_and_read_by_name(sheet):
    path = sheet(["prompt"], ["a red apple"])
    with plan_run([str(path)]) as plan:
        assert plan.jobs == 1
        assert plan.warnings(None)[0] == f"{path}: only the sheet 'Sheet' is read, not 'notes' (--sheet NAME)"
    with plan_run([str(path)], PlanOptions(reading=Reading(sheet="Sheet"))) as plan:
        assert [plan.whole(job).prompt for job in plan] == ["a red apple"]
        assert not [sentence for sentence in plan.warnings(None) if "sheet" in sentence]
    with pytest.raises(PromptFileError, match="has no sheet 'nosuch': 'Sheet', 'notes'"):
        plan_run([str(path)], PlanOptions(reading=Reading(sheet="nosuch")))
