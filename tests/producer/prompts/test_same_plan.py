"""The same prompts in every format, packed and on standard input, are one plan."""

import gzip
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from promptmill.producer.plan import PlanOptions, plan_run
from promptmill.producer.prompts.columns import Reading
from tests.producer.prompts.formats import PACK, in_format

PARTI = Path(os.environ.get("PARTI_PROMPTS", "PartiPrompts.tsv"))
"""google-research/parti's PartiPrompts.tsv, where somebody has it; not ours to ship."""


def prompts() -> list[dict[str, str]]:
    """Sixteen hundred, with what formats trip over: quotes, commas, tabs' neighbours, other scripts, emoji, spaces."""
    random = Random(7)
    texts = (f"{n} {' '.join(random.choices(PARTS, k=3))}{' ' * (n % 3)}" for n in range(1632))
    return [{"prompt": text, "Note": random.choice(PARTS)} for text in texts]


PARTS = [
    "a red apple",
    'a sign that says "no"',
    "two pears, a plum; and",
    "l'été",
    "赤いりんご",
    "👩‍👩‍👧",
    r"50% of \it",
    "=1+1",
    "#3",
    "x\u00a0y",
]


def digest(name: str, **reading: object) -> str:
    with plan_run([name], PlanOptions(reading=Reading(**reading))) as plan:  # type: ignore[arg-type]
        assert plan.jobs == 1632
        return plan.digest


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    return prompts()


@pytest.fixture(scope="module")
def expected(rows: list[dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("same") / "a.jsonl"
    path.write_bytes(in_format(".jsonl", rows))
    return digest(str(path))


@pytest.mark.parametrize("packed", PACK)
@pytest.mark.parametrize("suffix", [".txt", ".tsv", ".csv", ".jsonl", ".parquet", ".xlsx"])
def test_every_format_is_the_same_plan(rows, expected: str, tmp_path: Path, suffix: str, packed: str):
    path = tmp_path / f"a{suffix}{packed}"
    path.write_bytes(PACK[packed](in_format(suffix, rows)))
    assert digest(str(path)) == expected


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".csv", ".csv.gz"])
def test_so_is_standard_input(rows, expected: str, monkeypatch: pytest.MonkeyPatch, suffix: str):
    content = in_format(suffix.removesuffix(".gz"), rows)
    content = gzip.compress(content) if suffix.endswith(".gz") else content
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert digest("-", format=suffix.lstrip(".")) == expected


def test_two_files_are_the_same_plan_again_and_another_than_one(rows, expected: str, tmp_path: Path):
    """The seeds of each begin anew, so that one may grow without the other."""
    for number, part in enumerate((rows[:1000], rows[1000:])):
        (tmp_path / f"{number}.jsonl.gz").write_bytes(gzip.compress(in_format(".jsonl", part)))
    assert digest(str(tmp_path / "*.gz")) == digest(str(tmp_path / "*.gz")) != expected


@pytest.mark.skipif(not PARTI.is_file(), reason="PARTI_PROMPTS names no PartiPrompts.tsv")
def test_parti_prompts_are_one_plan_in_every_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rows = list(parti())
    digests = {"tsv as it is": digest(str(PARTI))}
    for suffix in (".tsv", ".csv", ".jsonl", ".parquet", ".xlsx", ".txt"):
        for packed, pack in PACK.items():
            path = tmp_path / f"a{suffix}{packed}"
            path.write_bytes(pack(in_format(suffix, rows)))
            digests[path.name] = digest(str(path))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(in_format(".txt", rows))))
    digests["stdin"] = digest("-")
    print(json.dumps(digests, indent=1))
    assert len(set(digests.values())) == 1


def parti() -> Iterator[dict[str, str]]:
    names, *lines = PARTI.read_text().splitlines()
    for line in lines:
        row = dict(zip(names.split("\t"), line.split("\t"), strict=True))
        yield {"prompt": row.pop("Prompt"), **row}
