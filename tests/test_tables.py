"""The docs' tables are what the code's tables make of them, to the letter."""

import re

import pytest

from tools.tables import DOCS, TABLES, part_of

ROOMS = ("producer", "worker", "promptmill", "dataset")


@pytest.mark.parametrize("name", TABLES)
def test_a_page_has_the_table_that_the_code_makes(name: str):
    path, make = TABLES[name]
    assert part_of(path.read_text(), name)[2] == make(), "run `python -m tools.tables`"


def test_every_variable_that_the_code_reads_is_on_the_page():
    page = (DOCS / "settings.md").read_text()
    sources = [path.read_text() for room in ROOMS for path in (DOCS.parent / room).rglob("*.py")]
    read = {name for text in sources for name in re.findall(r"environ(?:\.\w+\(|\[)\"(\w+)\"", text)}
    assert {"NO_COLOR", "HF_HOME"} <= read
    assert [name for name in read if f"`{name}`" not in page] == []
