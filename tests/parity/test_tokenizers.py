"""The real tokenizers of SDXL, on ten thousand strings: our ids are those of transformers, of today's and the old one.

Needs CLIP's table of merges: `pip install --no-deps open-clip-torch`.
"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from transformers import CLIPTokenizer

from benchmarks.real_tokenizers import LENGTH, PACKAGE, find_table, write_tokenizers
from promptmill.worker.text.prompts import Tokenizers, tokenize
from tests.parity.strings import COUNT, varied_strings
from tests.parity.token_ids import (
    NAMES,
    STORED,
    as_slow_reads,
    as_today,
    checksum_of_strings,
    checksums,
    has_mark_in_capitals,
)

START, END, EXCLAMATION = 49406, 49407, 0


class Ids(NamedTuple):
    tokenizer: np.ndarray
    tokenizer_2: np.ndarray


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    table = find_table()
    if table is None:
        message = f"CLIP's table of merges is not here: pip install --no-deps {PACKAGE}"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    folder = tmp_path_factory.mktemp("real")
    write_tokenizers(folder, table)
    return folder


@pytest.fixture(scope="module")
def ours(folder: Path) -> Tokenizers:
    return Tokenizers(folder)


@pytest.fixture(scope="module")
def strings() -> list[str]:
    return varied_strings()


@pytest.fixture(scope="module")
def our_ids(ours: Tokenizers, strings: list[str]) -> Ids:
    return ids_of(ours, strings)


@pytest.fixture(scope="module")
def stored() -> dict[str, np.ndarray]:
    with np.load(STORED) as arrays:
        return dict(arrays)


def ids_of(tokenizers: Tokenizers, strings: list[str], windows: int = 1) -> Ids:
    tokens, _ = tokenize(tokenizers, strings, strings, windows=windows)
    return Ids(tokens.ids.reshape(len(strings), -1), tokens.ids_2.reshape(len(strings), -1))


def the_same(ours: np.ndarray, theirs: np.ndarray, strings: list[str]) -> None:
    wrong = [
        index for index, (row, other) in enumerate(zip(ours, theirs, strict=True)) if not np.array_equal(row, other)
    ]
    assert not wrong, f"{len(wrong)} of {len(strings)} differ; the first: {strings[wrong[0]]!r}"


def test_known_prompts_have_known_ids(ours: Tokenizers) -> None:
    first, second = ids_of(ours, ["a photo of a cat", "", "Hello, World!"])
    cat, empty = [START, 320, 1125, 539, 320, 2368, END], [START, END]
    assert first[0].tolist() == cat + [END] * (LENGTH - len(cat))
    assert second[0].tolist() == cat + [0] * (LENGTH - len(cat))
    assert first[1].tolist() == empty + [END] * 75
    assert second[1].tolist() == empty + [0] * 75
    # An exclamation mark is the second tokenizer's padding, and no longer the word that it is to the first.
    assert first[2, :6].tolist() == [START, 3306, 267, 1002, 256, END]
    assert second[2, :6].tolist() == [START, 3306, 267, 1002, EXCLAMATION, END]


def test_the_strings_are_varied(strings: list[str], stored: dict[str, np.ndarray]) -> None:
    assert len(strings) == COUNT == 10_000
    assert len(set(strings)) > 9000 and len(set("".join(strings))) > 3000
    assert checksum_of_strings(strings) == stored["strings"], "strings changed: make the references anew"


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_ids_are_those_of_transformers(folder: Path, our_ids: Ids, strings: list[str], name: str) -> None:
    theirs = CLIPTokenizer.from_pretrained(str(folder / name))
    expected = theirs(strings, padding="max_length", max_length=LENGTH, truncation=True)["input_ids"]
    the_same(getattr(our_ids, name), np.array(expected), strings)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_ids_are_those_of_the_old_slow_tokenizer(
    our_ids: Ids, strings: list[str], stored: dict[str, np.ndarray], name: str
) -> None:
    """Of every string that has nothing in it that the two are known to read differently."""
    rows = [
        row
        for row, text in enumerate(strings)
        if as_slow_reads(text) == as_today(text) and not has_mark_in_capitals(text)
    ]
    assert len(rows) > 6900
    the_same(checksums(getattr(our_ids, name)[rows]), stored[name][rows], [strings[row] for row in rows])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_old_and_new_differ_only_in_what_is_known(
    ours: Tokenizers, strings: list[str], stored: dict[str, np.ndarray], name: str
) -> None:
    """Given the text as the old one read it, ours makes the same ids of it."""
    rows = [row for row, text in enumerate(strings) if not has_mark_in_capitals(text)]
    assert len(rows) > 9300
    ids = ids_of(ours, [as_slow_reads(strings[row]) for row in rows])
    the_same(checksums(getattr(ids, name)), stored[name][rows], [strings[row] for row in rows])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_long_prompts_keep_every_token(folder: Path, ours: Tokenizers, strings: list[str], name: str) -> None:
    long = [text for text in strings[:2000] if len(text) > 250]
    theirs = CLIPTokenizer.from_pretrained(str(folder / name))
    windows = getattr(ids_of(ours, long, windows=20), name).reshape(len(long), 20, LENGTH)
    for text, rows in zip(long, windows, strict=True):
        expected = theirs(text, add_special_tokens=False)["input_ids"]
        assert len(expected) < 20 * (LENGTH - 2), "more windows are needed here"
        assert rows[:, 1:-1].reshape(-1)[: len(expected)].tolist() == expected, text
