"""Properties of all readers: what is written is read, and no bytes at all make a traceback."""

import csv
from dataclasses import fields
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from promptmill.producer.errors import PromptFileError
from promptmill.producer.families.samplers import SAMPLERS
from promptmill.producer.job import Job
from promptmill.producer.plan import PlanOptions, plan_run
from promptmill.producer.prompts.columns import Reading
from promptmill.producer.prompts.dialects import DIALECTS
from promptmill.producer.prompts.expand import Expansion
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
    "cache_interval": st.integers(1, 1000),
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
SUFFIXES = (".txt", ".jsonl", ".csv", ".tsv", ".parquet", ".xlsx")
WHOLE = {
    f"{suffix}{packed}": pack(in_format(suffix, SOUND)) for suffix in SUFFIXES for packed, pack in PACK.items()
} | {".csv ": in_format(".csv", SOUND).decode().encode("utf-16"), ".txt ": "a\nb\nc".encode("utf-32")}

URL = "/v1/images/generations"
LINES = {
    "kohya": b"a red apple --n blurry, text --w 128 --h 64 --d 7 --l 5.5 --s 12\na pear --ss k_euler\n",
    "a1111": b'--prompt "a red apple" --negative_prompt "x" --steps 12 --n_iter 2\n--prompt a pear --sampler_name x\n',
    "openai": f'{{"custom_id": "a", "method": "POST", "url": "{URL}", "body": {{"prompt": "x", "n": 2}}}}\n'.encode()
    * 2,
}

Change = tuple[int, int, bytes]
changes = st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 4), st.binary(max_size=4)), min_size=1, max_size=4)


def damaged(data: bytes, changes: list[Change]) -> bytes:
    for index, gone, new in changes:
        at = index % (len(data) + 1)
        data = data[:at] + new + data[at + gone :]
    return data


def tells_or_reads(path: Any, dialect: str | None = None, **expansion: Any) -> None:
    """Rows, or sentences that name the file; nothing else may come of a file."""
    try:
        for row in read(path, dialect=dialect):
            assert not isinstance(row, PromptFileError) or is_told(path, row)
        options = PlanOptions(on_error="skip", reading=Reading(dialect=dialect), expansion=Expansion(**expansion))
        with plan_run([str(path)], options) as plan:
            assert plan.jobs <= plan.rows or dialect
            assert all(line.isprintable() for line in plan.warnings(None))
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


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(sorted(LINES)), changes)
def test_damaged_lines_of_other_programs_are_read_or_told(
    tmp_path_factory: Folder, dialect: str, changes: list[Change]
) -> None:
    path = tmp_path_factory.getbasetemp() / f"damaged{DIALECTS[dialect].format}"
    path.write_bytes(damaged(LINES[dialect], changes))
    tells_or_reads(path, dialect)


FUZZED = 10_000
SNIPPETS = [
    *(bytes([byte]) for byte in b'{}|,"\\#\t\n\x00\xff\xc3'),
    *b"$$ :: __ -- --w prompt seed null NaN custom_id PAR1 <lora:x:1> a1111".split(),
    *(
        text.encode()
        for text in ("\ufeff", "\u200b", "👩", "a red apple", " --s ", '{"prompt": ', '"seed": 1e17', "\r\n")
    ),
    *(b"[" * 40, b"9" * 25, b'{"_rejected": {', b"\xed\xa0\x80", b"PK\x03\x04", b"\x1f\x8b"),
]


def fuzzed(random: Random) -> tuple[str, bytes]:
    """A prompt file of any format: sound and then damaged, or made of what trips readers up."""
    kind = random.choice(sorted(WHOLE))
    data = WHOLE[kind] if random.random() < 0.5 else b"".join(random.choices(SNIPPETS, k=random.randrange(30)))
    for _ in range(random.randrange(5)):
        at = random.randrange(len(data) + 1)
        data = data[:at] + random.choice(SNIPPETS) + data[at + random.randrange(4) :]
    if random.random() < 0.3:
        data = PACK[next((pack for pack in PACK if pack and kind.endswith(pack)), "")](data)
    return kind.strip(), data


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_thousand_fuzzed_files_make_no_traceback(tmp_path: Any) -> None:
    random = Random(20)
    for number in range(FUZZED):
        kind, data = fuzzed(random)
        fitting = [name for name, one in DIALECTS.items() if kind.startswith(one.format)]
        dialect = random.choice([*fitting, None, None])
        path = tmp_path / f"{number}{kind}"
        path.write_bytes(data)
        tells_or_reads(path, dialect, plain=random.random() < 0.5)
        path.unlink()


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
