"""Properties of all readers: what is written is read, and no bytes at all make a traceback."""

import csv
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from promptmill.producer.errors import PromptFileError
from promptmill.producer.families.samplers import SAMPLERS
from promptmill.producer.job import Job
from promptmill.producer.plan import PlanOptions, plan_run
from promptmill.producer.prompts.invisible import bare
from tests.producer.prompts.formats import PACK, in_format, prompts, read, said

Folder = pytest.TempPathFactory

texts = st.text(st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from('\n\t",;|'), min_size=1, max_size=40)
texts = texts.filter(lambda text: bool(text.strip()))
labels = st.dictionaries(st.sampled_from(["id", "author", "Note"]), texts, max_size=2)
rows = st.lists(
    st.builds(
        lambda prompt, seed, labels: {"prompt": prompt, "seed": seed, **labels},
        texts,
        st.integers(0, 2**63 - 1),
        labels,
    ),
    min_size=1,
    max_size=6,
)


@settings(deadline=None, max_examples=150)
@given(rows, st.sampled_from([".jsonl", ".csv", ".tsv", ".parquet"]), st.sampled_from(list(PACK)))
def test_what_is_written_is_read(
    tmp_path_factory: Folder, rows: list[dict[str, Any]], suffix: str, packed: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"round{suffix}{packed}"
    if suffix == ".parquet":  # whose schema is the first row's
        rows = [{name: row.get(name) for name in ("prompt", "seed", "id", "author", "Note")} for row in rows]
    path.write_bytes(PACK[packed](in_format(suffix, rows)))
    back = [{**fields, **labels} for fields, labels in said(read(path))]
    assert back == [{name: value for name, value in row.items() if value is not None} for row in rows]


lines = texts.map(lambda text: bare(text.replace("\n", " "))).filter(lambda text: bool(text) and text[0] != "#")


@settings(deadline=None, max_examples=150)
@given(
    st.lists(lines, min_size=1, max_size=6),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
    st.sampled_from(["\n", "\r\n", "\n\n"]),
    st.booleans(),
    st.sampled_from(list(PACK)),
)
def test_a_txt_of_any_editor_is_read(
    tmp_path_factory: Folder, lines: list[str], encoding: str, end: str, ended: bool, packed: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"round.txt{packed}"
    path.write_bytes(PACK[packed]((end.join(lines) + end * ended).encode(encoding)))
    assert prompts(read(path)) == lines


sides = st.integers(1, 512).map(lambda side: 8 * side)
pairs = st.tuples(st.integers(0, 4096), st.integers(0, 4096))
of_jobs: dict[str, st.SearchStrategy[Any]] = {
    "negative_prompt": texts,
    "seed": st.integers(0, 2**64 - 1),
    "width": sides,
    "height": sides,
    "num_inference_steps": st.integers(1, 400),
    "guidance_scale": st.floats(0, 100),
    "sampler": st.sampled_from(list(SAMPLERS)),
    "model": st.sampled_from(["2024", "a/b"]),
    "crops_coords_top_left": pairs,
    "negative_crops_coords_top_left": pairs,
    "guidance_rescale": st.floats(0, 1),
    "clip_skip": st.integers(1, 5),
    "prompt_weighting": st.booleans(),
    "prompt_windows": st.integers(1, 8),
}


def cell(value: Any) -> Any:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).upper() if isinstance(value, bool) else value


@settings(deadline=None, max_examples=200)
@given(texts, st.fixed_dictionaries({}, optional=of_jobs))
def test_a_job_in_a_csv_is_that_job(tmp_path_factory: Folder, prompt: str, given: dict[str, Any]) -> None:
    assert of_jobs.keys() <= {field.name for field in fields(Job)}
    row = {"prompt": prompt, **given}
    path = tmp_path_factory.getbasetemp() / "job.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([list(row), [cell(value) for value in row.values()]])
    (((read_fields, _),)) = said(read(path))
    assert Job.from_fields(read_fields) == Job(**row)


# --- damage ----------------------------------------------------------------------------------------------

SOUND = [{"prompt": f"a {thing}, red", "seed": n, "author": "ann"} for n, thing in enumerate(("cat", "dog", "fox"))]
SUFFIXES = (".txt", ".jsonl", ".csv", ".tsv", ".parquet")
WHOLE = {
    f"{suffix}{packed}": pack(in_format(suffix, SOUND)) for suffix in SUFFIXES for packed, pack in PACK.items()
} | {".csv ": in_format(".csv", SOUND).decode().encode("utf-16"), ".txt ": "a\nb\nc".encode("utf-32")}

Change = tuple[int, int, bytes]
changes = st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 4), st.binary(max_size=4)), min_size=1, max_size=4)


def damaged(data: bytes, changes: list[Change]) -> bytes:
    for index, gone, new in changes:
        at = index % (len(data) + 1)
        data = data[:at] + new + data[at + gone :]
    return data


def tells_or_reads(path: Any) -> None:
    """Rows, or sentences that name the file; nothing else may come of a file."""
    try:
        for row in read(path):
            assert not isinstance(row, PromptFileError) or is_told(path, row)
        with plan_run([str(path)], PlanOptions(on_error="skip")) as plan:
            assert plan.jobs <= plan.rows
    except PromptFileError as error:
        assert is_told(path, error)


def is_told(path: Any, error: PromptFileError) -> bool:
    told = str(error).split("\n")
    return all(line.startswith((str(path), "... and")) and line.isprintable() for line in told)


@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(WHOLE)), changes)
def test_a_damaged_file_is_read_or_told(tmp_path_factory: Folder, kind: str, changes: list[Change]) -> None:
    path = tmp_path_factory.getbasetemp() / f"damaged{kind.strip()}"
    path.write_bytes(damaged(WHOLE[kind], changes))
    tells_or_reads(path)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200), st.sampled_from(SUFFIXES), st.sampled_from(list(PACK)), st.booleans())
def test_no_bytes_make_a_traceback(
    tmp_path_factory: Folder, content: bytes, suffix: str, packed: str, well: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / f"fuzz{suffix}{packed}"
    path.write_bytes(PACK[packed](b"prompt,seed\n" + content) if well else content)
    tells_or_reads(path)


DEPTHS = (10, 100, 101, 300, *range(600, 1001, 7), 100_000)


@pytest.mark.parametrize("field", ["deep", "timesteps"])
def test_what_is_nested_to_any_depth_is_told_or_kept(tmp_path_factory: Folder, field: str) -> None:
    path = tmp_path_factory.getbasetemp() / "deep.jsonl"
    path.write_text("".join(f'{{"prompt": "x", "{field}": {"[" * depth}{"]" * depth}}}\n' for depth in DEPTHS))
    tells_or_reads(path)
    with plan_run([str(path)], PlanOptions(on_error="skip"), needed=False) as plan:
        assert plan.rejected == len(DEPTHS) - (2 if field == "deep" else 0)
        assert all("deep" in error.problem or "must be" in error.problem for error in plan.rejects.first)


def test_a_cell_nested_to_any_depth_is_told(tmp_path_factory: Folder) -> None:
    path = tmp_path_factory.getbasetemp() / "deep.csv"
    path.write_text("prompt,timesteps\n" + "".join(f"x,{'[' * depth}{']' * depth}\n" for depth in DEPTHS))
    tells_or_reads(path)
