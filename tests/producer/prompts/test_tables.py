"""CSV, TSV and Parquet: what they say, and where they are wrong."""

import datetime
import decimal
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from promptmill.producer.errors import PromptFileError
from promptmill.producer.prompts.files import Row
from tests.producer.prompts.formats import PACK, in_format, prompts, read, said

ROWS: list[dict[str, Any]] = [
    {"prompt": 'a, "b"\nc', "seed": 7, "steps": 20, "author": "ann"},
    {"prompt": "d", "author": "bob"},
]
READ = [
    ({"prompt": 'a, "b"\nc', "seed": 7, "steps": 20}, {"author": "ann"}),
    ({"prompt": "d"}, {"author": "bob"}),
]

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(content: str | bytes, name: str = "a.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def lines(rows: list[Row | PromptFileError]) -> list[tuple[int, str]]:
    """Each row's line and its prompt, or what is wrong with it."""
    return [(row.line, row.fields["prompt"] if isinstance(row, Row) else row.problem) for row in rows]


@pytest.mark.parametrize("packed", PACK)
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv", ".parquet"])
def test_the_same_rows_in_every_format(write: Write, suffix: str, packed: str) -> None:
    assert said(read(write(PACK[packed](in_format(suffix, ROWS)), f"a{suffix}{packed}"))) == READ


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_table_as_excel_writes_it(write: Write, encoding: str) -> None:
    path = write('prompt\tseed\r\n"a ""red"" äpple"\t7\r\n'.encode(encoding), "a.tsv")
    assert said(read(path)) == [({"prompt": 'a "red" äpple', "seed": 7}, {})]


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_a_csv_without_commas_is_separated_as_excel_does_it(write: Write, delimiter: str) -> None:
    wide = '\ufeffprompt;seed;class\r\n"a ""red"", round; one";7;x\r\n"two\nlines";8;\r\n'
    path = write(wide.replace(";", delimiter).encode())
    first = {"prompt": f'a "red", round{delimiter} one', "seed": 7}
    assert said(read(path)) == [(first, {"class": "x"}), ({"prompt": "two\nlines", "seed": 8}, {})]


def test_a_csv_of_prompts_alone_may_have_semicolons_in_them(write: Write) -> None:
    assert said(read(write("prompt\na cat; asleep\n"))) == [({"prompt": "a cat; asleep"}, {})]


# --- quotes ----------------------------------------------------------------------------------------------


def test_a_record_of_several_lines_is_known_by_its_first(write: Write) -> None:
    rows = read(write('prompt,seed\n"one\ntwo",1\n\n,,\nthree,4,5\nfour,6\n'))
    assert lines(rows) == [(2, "one\ntwo"), (6, "has 3 cells, but the header has 2"), (7, "four")]


def test_a_record_that_runs_on_says_how_far(write: Write) -> None:
    rows = read(write('prompt,seed\n"one\ntwo",1,2\nthree,4\n'))
    assert lines(rows) == [(2, "has 3 cells, but the header has 2; its quotes run to line 3"), (4, "three")]


@pytest.mark.parametrize("after", ["three\nfour\n", "three\nfour"])
def test_a_quote_that_is_never_closed_costs_its_line_alone(write: Write, after: str) -> None:
    rows = read(write(f'prompt\none\n"two\n{after}'))
    assert lines(rows) == [(2, "one"), (3, 'has a " that is never closed'), (4, "three"), (5, "four")]
    assert isinstance(rows[1], PromptFileError)
    assert rows[1].text == '"two'


def test_a_quote_that_another_cells_quote_would_close_costs_its_line_alone(write: Write) -> None:
    rows = read(write('prompt,seed\n"two,1\nthree,2\n"four, five",3\n'))
    problem = 'has a " that is not closed where its cell ends, at line 4; within a cell write ""'
    assert lines(rows) == [(2, problem), (3, "three"), (4, "four, five")]


def test_an_unclosed_quote_before_a_long_file_is_found_without_reading_it_whole(write: Write) -> None:
    count = 60_000
    rows = read(write('prompt\n"broken\n' + "".join(f"a prompt that has number {n:012}\n" for n in range(count))))
    assert lines(rows[:2]) == [(2, 'has a " that is never closed'), (3, f"a prompt that has number {0:012}")]
    assert len(rows) == count + 1


def test_an_inch_is_no_quote(write: Write) -> None:
    assert prompts(read(write('prompt\na 5" disk\n'))) == ['a 5" disk']


def test_a_cell_may_be_long(write: Write) -> None:
    label = "x" * 500_000
    assert said(read(write(f"prompt,note\na cat,{label}\n"))) == [({"prompt": "a cat"}, {"note": label})]


def test_an_old_macs_line_ends_are_told(write: Write) -> None:
    with pytest.raises(PromptFileError, match=":1: has a carriage return within"):
        read(write("prompt\rone\rtwo\r"))


def test_a_line_that_is_not_utf_8_is_told_by_its_byte(write: Write) -> None:
    rows = read(write(b'prompt,seed\none,1\n"two\nthr\xffee",2\nfour,3\n'))
    assert lines(rows) == [(2, "one"), (4, "is not UTF-8 at byte 4 of the line: save the file as UTF-8"), (5, "four")]


# --- columns ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (
            "prompt,widht",
            "widht: is not a field of a job; did you mean 'width'? (--column width=widht, or a label: --label widht)",
        ),
        (
            "prompt,Steps ",
            "'Steps ': is not a field of a job; did you mean 'steps'? "
            "(--column steps='Steps ', or a label: --label 'Steps ')",
        ),
        ("words,seed", "prompt: no such column (there are: words, seed); --prompt-column names another"),
        ("prompt,seed,seed", "seed: is there twice"),
        ("prompt,no\ttab\x07", "a column's name: has a control character (U+0007) at character 7"),
        ('"prompt,seed', 'has a " that is never closed'),
    ],
)
@pytest.mark.parametrize("blank", ["", "\n,,\n"])
def test_a_wrong_header_is_told_once(write: Write, header: str, problem: str, blank: str) -> None:
    path = write(f"{blank}{header}\n")
    with pytest.raises(PromptFileError) as caught:
        read(path)
    assert str(caught.value) == f"{path}:{3 if blank else 1}: {problem}"


@pytest.mark.parametrize("column", ["prompt", "seed"])
def test_a_column_that_a_flag_names_must_be_there(write: Write, column: str) -> None:
    with pytest.raises(PromptFileError, match="1: my_own: no such column"):
        read(write("prompt,seed\na cat,7\n"), columns={column: "my_own"})


def test_columns_are_mapped_and_labels_may_look_like_fields(write: Write) -> None:
    path = write("Caption,my_seed,widht,Guidance Scale\na cat,7,wide,5.5\n")
    columns = {"prompt": "Caption", "prompt_2": "Caption", "seed": "my_seed", "guidance": "Guidance Scale"}
    rows = read(path, columns=columns, labels=frozenset({"widht"}))
    fields = {"prompt": "a cat", "prompt_2": "a cat", "seed": 7, "guidance": 5.5}
    assert said(rows) == [(fields, {"widht": "wide"})]


def test_a_field_that_another_column_fills_is_a_label(write: Write) -> None:
    rows = read(write("prompt,better\na cat,a white cat\n"), columns={"prompt": "better"})
    assert said(rows) == [({"prompt": "a white cat"}, {"prompt": "a cat"})]


def test_a_column_without_a_name_is_passed_over(write: Write) -> None:
    assert said(read(write(",prompt,\n0,a cat,\n1,a dog,\n"))) == [({"prompt": "a cat"}, {}), ({"prompt": "a dog"}, {})]


def test_an_empty_cell_is_not_given(write: Write) -> None:
    assert said(read(write("prompt,negative_prompt,seed,author\na cat, ,,\n"))) == [({"prompt": "a cat"}, {})]


@pytest.mark.parametrize(
    ("column", "cell", "value"),
    [
        ("seed", "18446744073709551615", 2**64 - 1),
        ("seed", "1_000", "1_000"),
        ("seed", "7.0", 7.0),
        ("guidance", " 5.5 ", 5.5),
        ("guidance", "1e1", 10.0),
        ("width", "wide", "wide"),
        ("prompt_weighting", "TRUE", True),
        ("target_size", '"64,128"', [64, 128]),
        ("target_size", '"[64, 128]"', [64, 128]),
        ("timesteps", "999", [999]),
        ("sigmas", "high", "high"),
        ("negative_prompt", "7", "7"),
        ("model", "2024", "2024"),
        ("rating", "5", "5"),
    ],
)
def test_a_cell_is_what_its_field_takes(write: Write, column: str, cell: str, value: object) -> None:
    ((fields, labels),) = said(read(write(f"prompt,{column}\na cat,{cell}\n")))
    assert repr({**fields, **labels}[column]) == repr(value)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".jsonl"])
def test_a_control_character_in_a_label_is_refused(write: Write, suffix: str) -> None:
    path = write(in_format(suffix, [{"prompt": "a", "by": "x\0"}, {"prompt": "b", "by": "tab\tline\n"}]), f"a{suffix}")
    wrong, right = read(path)
    assert str(wrong).endswith(": by: has a control character (U+0000) at character 2")
    assert said([right]) == [({"prompt": "b"}, {"by": "tab\tline\n"})]


# --- Parquet ---------------------------------------------------------------------------------------------


def parquet(write: Write, **columns: Any) -> Path:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return write(out.getvalue(), "a.parquet")


def test_values_of_parquet_are_json(write: Write) -> None:
    day = datetime.date(2026, 2, 3)
    path = parquet(
        write,
        prompt=["a cat", "a dog"],
        seed=pa.array([7, None]),
        guidance=[5.5, float("nan")],
        target_size=[[64, 128], None],
        day=[day, None],
        price=[decimal.Decimal("1.50"), None],
        about=[{"day": day, "tags": ["x"]}, None],
    )
    fields = {"prompt": "a cat", "seed": 7, "guidance": 5.5, "target_size": [64, 128]}
    labels = {"day": "2026-02-03", "price": "1.50", "about": {"day": "2026-02-03", "tags": ["x"]}}
    assert said(read(path)) == [(fields, labels), ({"prompt": "a dog"}, {})]


def test_images_in_parquet_are_left_out(write: Write) -> None:
    path = parquet(write, prompt=["a cat"], jpg=[b"\xff\xd8"], image=[{"bytes": b"\xff\xd8", "path": "a.jpg"}])
    assert said(read(path)) == [({"prompt": "a cat"}, {"image": {"path": "a.jpg"}})]


def test_a_prompt_that_is_bytes_is_text(write: Write) -> None:
    wrong = parquet(write, caption=["a cät".encode(), b"\xff"])
    right, error = read(wrong, columns={"prompt": "caption"})
    assert said([right]) == [({"prompt": "a cät"}, {})]
    assert str(error) == f"{wrong}:2: prompt: is not UTF-8 at byte 1"


def test_a_value_that_python_cannot_hold_is_its_rows_fault(write: Write) -> None:
    far = pa.array([0, 2**40, 1], pa.timestamp("s"))
    path = parquet(write, prompt=["a cat", "a dog", "a fox"], when=far)
    right, wrong, last = read(path)
    assert str(wrong).startswith(f"{path}:2: has a value that cannot be read: ")
    assert said([right, last]) == [
        ({"prompt": "a cat"}, {"when": "1970-01-01T00:00:00"}),
        ({"prompt": "a fox"}, {"when": "1970-01-01T00:00:01"}),
    ]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(8) + b"PAR1", b"prompt\na cat\n"])
def test_what_is_no_parquet_is_told(write: Write, content: bytes) -> None:
    path = write(content, "a.parquet")
    with pytest.raises(PromptFileError, match=r"a\.parquet: (is not Parquet|cannot be read to its end): ") as caught:
        read(path)
    assert len(str(caught.value).splitlines()) == 1


def test_without_pyarrow_parquet_is_a_sentence(write: Write) -> None:
    path = parquet(write, prompt=["a cat"])
    code = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "pyarrow":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocker())
from promptmill.producer.errors import PromptFileError
from promptmill.producer.prompts.files import read_prompt_files
try:
    list(read_prompt_files([{str(path)!r}]))
except PromptFileError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout == f"{path}: Parquet needs pyarrow: pip install 'promptmill[parquet]'\n", ran.stderr


def test_quotes_of_a_tsv_may_be_text(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(
        'prompt\tby\n"Safe" in neon\tann\na sign "no"\tbo\n"a\tb"\tcy\n"open\tdi\n"two ""quotes"""\ted\nlast\tfay\n'
    )
    assert [(fields["prompt"], labels["by"]) for fields, labels in said(read(path))] == [
        ('"Safe" in neon', "ann"),
        ('a sign "no"', "bo"),
        ("a\tb", "cy"),
        ('"open', "di"),
        ('two "quotes"', "ed"),
        ("last", "fay"),
    ]


def test_a_csv_has_no_quotes_that_are_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('prompt,by\n"Safe" in neon,ann\nlast,fay\n')
    wrong, last = read(path)
    assert isinstance(wrong, PromptFileError) and "is not closed where its cell ends" in wrong.problem
    assert said([last]) == [({"prompt": "last"}, {"by": "fay"})]
