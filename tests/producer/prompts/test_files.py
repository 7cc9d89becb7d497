"""Prompt files: every row or its error, with file, line and field."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptmill.producer.errors import PromptFileError, PromptFileErrors
from promptmill.producer.fields import ALIASES, FIELD_NAMES
from promptmill.producer.plan import PlanOptions, plan_jobs, plan_run
from promptmill.producer.prompts.files import Row, read_prompt_files
from promptmill.producer.prompts.rejects import MOST_LISTED as MAX_LISTED_ERRORS
from promptmill.producer.values import MAX_PROMPT_CHARS

WriteFile = Callable[[str, str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> WriteFile:
    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def rows(path: Path) -> list[tuple[int, Any]]:
    return [(row.line, row.fields) for _, row in read_prompt_files([str(path)]) if isinstance(row, Row)]


def prompts(path: Path) -> list[str]:
    return [fields["prompt"] for _, fields in rows(path)]


def read_plan(paths: list[Path | str], defaults: dict[str, Any]) -> list[dict[str, Any]]:
    """The plan's jobs."""
    with plan_run([str(path) for path in paths], PlanOptions(defaults=defaults)) as plan:
        return [json.loads(planned.own_json) | plan.common for planned in plan]


def errors(path: Path) -> list[str]:
    """What is wrong with the file's rows, `line: field: problem` each."""
    with pytest.raises(PromptFileErrors) as caught:
        read_plan([path], {})
    assert all(str(error).startswith(f"{path}:{error.line}: ") for error in caught.value.errors)
    return [str(error).removeprefix(f"{path}:") for error in caught.value.errors]


def test_a_txt_is_one_prompt_a_line(write):
    path = write("a.txt", "one\n\n# a comment\n  two # not a comment \n\t\n \u00a0\nthree")
    assert rows(path) == [(1, {"prompt": "one"}), (4, {"prompt": "two # not a comment"}), (7, {"prompt": "three"})]


@pytest.mark.parametrize("suffix", [".txt", ".TXT"])
def test_the_formats_name_may_be_in_capitals(write, suffix: str):
    assert prompts(write(f"a{suffix}", "one\n")) == ["one"]


@pytest.mark.parametrize(
    "content",
    [
        b"one\r\ntwo\r\n",
        b"\xef\xbb\xbfone\ntwo",
        b"\n\r\n one\n#\ntwo\n\n",
        "\ufeffone\ntwo\n".encode("utf-16-le"),
        "\ufeffone\r\ntwo".encode("utf-16-be"),
        "\ufeffone\ntwo".encode("utf-32-le"),
    ],
    ids=["windows", "byte order mark", "blank lines", "UTF-16 LE", "UTF-16 BE", "UTF-32"],
)
def test_a_txt_may_come_from_any_editor(write, content: bytes):
    assert prompts(write("a.txt", content)) == ["one", "two"]


def test_a_jsonl_may_come_from_any_editor(write):
    assert prompts(write("a.jsonl", b'\xef\xbb\xbf{"prompt":"one"}\r\n\r\n{"prompt":"two"}')) == ["one", "two"]


def test_a_jsonl_row_has_its_fields(write):
    path = write("a.ndjson", '{"prompt": "one", "seed": 7, "steps": 9}\n')
    assert rows(path) == [(1, {"prompt": "one", "seed": 7, "steps": 9})]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"good\nbad \xff\n", "2: is not UTF-8 at byte 5 of the line: save the file as UTF-8"),
        (b"one\nt\x00wo", "2: prompt: has a control character (U+0000) at character 2"),
        (b"one\rtwo\r", "1: prompt: has a control character (U+000D) at character 4"),
        (b"x" * (MAX_PROMPT_CHARS + 1), "1: prompt: must be at most 10000 characters, got 10001"),
    ],
    ids=["not UTF-8", "NUL", "an old Mac's", "too long"],
)
def test_a_wrong_line_of_a_txt_is_told_by_its_number(write, content: bytes, problem: str):
    path = write("a.txt", content)
    with pytest.raises(PromptFileError) as caught:
        read_plan([path], {})
    assert str(caught.value) == f"{path}:{problem}"


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("not json", "is not valid JSON: Expecting value at character 1"),
        ('{"prompt": "x"', "is not valid JSON: Expecting ',' delimiter at character 15"),
        ('{"prompt": "x"} {"prompt": "y"}', "is not valid JSON: Extra data at character 17"),
        ('["x"]', 'must be a JSON object such as {"prompt": "..."}, got list'),
        ('"x"', 'must be a JSON object such as {"prompt": "..."}, got str'),
        ("null", 'must be a JSON object such as {"prompt": "..."}, got NoneType'),
        ('{"prompt": "x", "guidance": NaN}', "NaN is not valid JSON"),
        ('{"prompt": "x", "guidance": -Infinity}', "-Infinity is not valid JSON"),
        ('{"prompt": "x", "seed": 1, "seed": 2}', "seed: is given twice in this row"),
        ('{"prompt": "x", "steps": 1, "num_inference_steps": 2}', "num_inference_steps: is given twice: "),
        ("[" * 100_000, "is not a row: nested too deeply"),
        ('{"a":' * 100_000, "is not a row: nested too deeply"),
        ('{"seed": 1}', "prompt: is missing"),
        ('{"prompt": null}', "prompt: is missing"),
        ("{}", "prompt: is missing"),
        ('{"prompt": " "}', "prompt: is empty"),
        ('{"prompt": 5}', "prompt: must be text, got 5"),
        (r'{"prompt": "\u0000"}', "prompt: has a control character (U+0000) at character 1"),
        (r'{"prompt": "\ud800"}', "prompt: has half a surrogate pair (U+D800) at character 1"),
        ('{"prompt": "x", "width": "wide"}', "width: must be a whole number, got 'wide'"),
        ('{"prompt": "x", "width": 1030}', "width: must be a multiple of 8, got 1030"),
        ('{"prompt": "x", "seed": true}', "seed: must be a whole number, got True"),
        ('{"prompt": "x", "seed": 1e400}', "seed: must be a whole number, got inf"),
        ('{"prompt": "x", "seed": ' + "1" * 300 + "}", "seed: must be from 0 to 18446744073709551615, got 1111"),
        ('{"prompt": "x", "seed": ' + "1" * 5000 + "}", "has a number of 5000 digits"),
        ('{"prompt": "x", "guidance": 1' + "0" * 390 + "}", "guidance: must be from 0 to 100, got 1000"),
        ('{"prompt": "x", "model": 5}', "model: must be text, got 5"),
        ('{"prompt": "x", "model": ""}', "model: no model ''"),
        ('{"prompt": "x", "model": "nonsense"}', "model: no model 'nonsense': expected pocket, tiny-random, a folder"),
        ('{"prompt": "x", "model": "/no/such/folder"}', "model: no model '/no/such/folder'"),
        ('{"prompt": "x", "model": "~no-such-user/x"}', "model: no model '~no-such-user/x'"),
        ('{"prompt": "x", "model": "' + "a" * 5000 + '"}', "model: no model 'aaaa"),
        ('{"prompt": "x", "promt": "y"}', "promt: is not a field of a job; did you mean 'prompt'?"),
        ('{"prompt": "x", "target_size": [8]}', "target_size: must be two whole numbers, got [8]"),
    ],
    ids=lambda text: text[:40],
)
def test_a_wrong_row_of_a_jsonl_is_told_by_line_and_field(write, row: str, problem: str):
    (error,) = errors(write("a.jsonl", f'{{"prompt": "good"}}\n\n{row}\n{{"prompt": "good"}}\n'))
    assert error.startswith(f"3: {problem}")
    assert len(error.splitlines()) == 1


def test_a_row_nested_to_any_depth_is_told(write):
    """What Python still parses it may be unable to print: where the stack ends depends on who calls."""
    depths = range(600, 1001)
    path = write("a.jsonl", "".join(f'{{"prompt": {"[" * depth}{"]" * depth}}}\n' for depth in depths))
    with pytest.raises(PromptFileErrors) as caught:
        read_plan([path], {})
    assert caught.value.count == len(depths)


def test_a_null_counts_as_not_given(write):
    path = write("a.jsonl", '{"prompt": "x", "seed": null, "negative_prompt": null, "model": null}')
    assert read_plan([path], {"seed": 5}) == read_plan([write("b.txt", "x")], {"seed": 5})


def test_all_wrong_rows_are_told_at_once(write):
    path = write("a.jsonl", '{"prompt": ""}\nnonsense\n{"prompt": "x"}\n{"prompt": "x", "seed": -1}\n')
    assert [error.split(":")[0] for error in errors(path)] == ["1", "2", "4"]


def test_wrong_rows_of_several_files_are_told_at_once(write):
    with pytest.raises(PromptFileErrors) as caught:
        read_plan([write("a.jsonl", "{}"), write("b.txt", "x\n\x00")], {})
    assert [(Path(error.path).name, error.line) for error in caught.value.errors] == [("a.jsonl", 1), ("b.txt", 2)]


def test_the_first_twenty_are_listed_and_the_rest_is_counted(write):
    path = write("a.jsonl", "".join(f'{{"prompt": {number}}}\n' for number in range(MAX_LISTED_ERRORS + 3)))
    with pytest.raises(PromptFileErrors) as caught:
        read_plan([path], {})
    lines = str(caught.value).splitlines()
    assert len(lines) == MAX_LISTED_ERRORS + 1
    assert lines[-1] == "... and 3 more"
    assert caught.value.count == MAX_LISTED_ERRORS + 3


def test_one_fault_of_many_rows_is_told_once_with_its_rows(write):
    rows = ['{"prompt": "x", "widht": 1}\n'] * 23 + ['{"prompt": "x"}\n', '{"prompt": "x", "widht": 2}\n', "{}\n"]
    with pytest.raises(PromptFileErrors) as caught:
        read_plan([write("a.jsonl", "".join(rows))], {})
    slip, missing = str(caught.value).splitlines()
    assert "a.jsonl:1: widht: is not a field of a job" in slip and slip.endswith(" (also lines 2-23, 25)")
    assert missing.endswith("a.jsonl:26: prompt: is missing")
    assert caught.value.count == 25


def test_an_unknown_field_of_every_job_is_told_once():
    with pytest.raises(PromptFileErrors) as caught:
        plan_jobs([{"prompt": "x", "qqq": 1}] * 30)
    assert len(str(caught.value).splitlines()) == 1 and str(caught.value).endswith(" (also lines 2-30)")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("missing.txt", "no such file"),
        ("missing", "no such file"),
        ("folder", "is a folder, not a prompt file; "),
        ("folder.txt", "is a folder, not a prompt file; "),
        (
            "a.docx",
            "is not a known prompt file (.txt, .jsonl, .ndjson, .csv, .tsv, .parquet, .xlsx, each also .gz, .zst)",
        ),
        ("x" * 300 + ".txt", "cannot be read: File name too long"),
        ("a.docx/a.txt", "cannot be read: Not a directory"),
        ("a\0b.txt", "cannot be read: its name has a NUL"),
    ],
    ids=["missing", "missing, no suffix", "folder", "folder.txt", "suffix", "long name", "in a file", "NUL"],
)
def test_a_file_that_cannot_be_one_is_told_by_its_name(tmp_path: Path, name: str, problem: str):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.txt").mkdir()
    (tmp_path / "a.docx").touch()
    path = f"{tmp_path}/{name}"
    with pytest.raises(PromptFileError) as caught:
        read_plan([path], {})
    shown = path.replace("\0", "\\x00")
    assert str(caught.value).startswith(f"{shown}: {problem}")


@pytest.mark.parametrize("content", ["", "\n\n", "# only\n# comments"])
def test_a_file_without_prompts_is_told(write, content: str):
    path = write("a.txt", content)
    with pytest.raises(PromptFileError, match="has no prompts"):
        read_plan([path], {})


def rows_or_errors(path: Path) -> None:
    """A prompt file gives a plan or says what is wrong with it, and nothing else."""
    try:
        assert read_plan([path], {})
    except PromptFileError as error:
        text = str(error)
        assert text
        assert "\x00" not in text
        assert all(line.startswith((str(path), "...")) for line in text.split("\n"))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4),
    max_leaves=8,
)
names = st.sampled_from([*FIELD_NAMES, *ALIASES]) | st.text(max_size=12)
json_rows = st.dictionaries(names, json_values, max_size=6) | json_values
json_lines = st.lists(json_rows.map(json.dumps), max_size=6).map("\n".join).map(str.encode)
prompted = st.dictionaries(names, json_values, max_size=3).map(lambda row: json.dumps({**row, "prompt": "x"}).encode())


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200))
def test_no_bytes_in_a_txt_make_a_traceback(tmp_path_factory: pytest.TempPathFactory, content: bytes):
    path = tmp_path_factory.getbasetemp() / "fuzz.txt"
    path.write_bytes(content)
    rows_or_errors(path)


@settings(deadline=None, max_examples=400)
@given(st.binary(max_size=200) | json_lines | prompted)
def test_no_bytes_in_a_jsonl_make_a_traceback(tmp_path_factory: pytest.TempPathFactory, content: bytes):
    path = tmp_path_factory.getbasetemp() / "fuzz.jsonl"
    path.write_bytes(content)
    rows_or_errors(path)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv"])
def test_utf_16_without_its_mark_is_told_once(write, encoding: str, name: str):
    path = write(name, "prompt\na red apple\na pear\n".encode(encoding))
    with pytest.raises(PromptFileError) as caught:
        read_plan([path], {})
    assert str(caught.value) == f"{path}: looks like UTF-16 without its byte order mark: save the file as UTF-8"


def test_what_windows_calls_ansi_is_told_by_line_and_byte(write):
    path = write("a.txt", "a red apple\nun café\n".encode("cp1252"))
    assert errors(path) == ["2: is not UTF-8 at byte 7 of the line: save the file as UTF-8"]
