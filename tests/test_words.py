"""A number is written with its noun in one place, which knows one from many: nobody is told of "1 images"."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from promptmill.producer.words import are, count, have

ROOT = Path(__file__).parents[1]
ROOMS = ("promptmill", "producer", "worker", "dataset")
NOUNS = (
    "image",
    "job",
    "row",
    "worker",
    "run",
    "file",
    "name",
    "failure",
    "shape",
    "prompt",
    "device",
    "weight",
    "cell",
)
ADJECTIVES = ("more ", "other ", "failed ", "distinct ", "duplicate ", "missing ", "wrong ", "of the ")
# Of these there are always several.
SEVERAL = {"said", "images", "count", "MAX_DELIVERIES", "which"}


def counted_by_hand(path: Path) -> Iterator[str]:
    """Formatted strings of a file with a number before a plural."""
    formatted = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.JoinedStr)]
    for node in formatted:
        for number, text in zip(node.values, node.values[1:], strict=False):
            by_hand = isinstance(number, ast.FormattedValue) and ast.unparse(number.value) not in SEVERAL
            if by_hand and isinstance(text, ast.Constant) and is_plural(str(text.value)):
                yield f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}"


def is_plural(text: str) -> bool:
    """Whether what follows a number begins with a noun of many; `images/s` is none."""
    words = text.removeprefix(" ")
    for adjective in ADJECTIVES:
        words = words.removeprefix(adjective)
    word = words.split(" ")[0].strip(".,;:)")
    return text.startswith(" ") and word.endswith("s") and word.removesuffix("s") in NOUNS


def test_no_number_stands_before_a_plural_by_hand():
    files = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    assert len(files) > 150
    assert [found for path in files for found in counted_by_hand(path)] == []


@pytest.mark.parametrize(("number", "said"), [(0, "0 images"), (1, "1 image"), (2, "2 images"), (2000, "2000 images")])
def test_one_is_one(number: int, said: str):
    assert count(number, "image") == said


def test_verbs_follow_the_number():
    assert [are(1, "job"), are(2, "job"), have(1, "job")] == ["1 job is", "2 jobs are", "1 job has"]
    assert have(1234, "job", commas=True) == "1,234 jobs have"
