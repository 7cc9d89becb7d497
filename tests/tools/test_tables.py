"""The docs' tables are what the code's tables make of them, to the letter."""

import pytest

from tools.tables import TABLES, part_of


@pytest.mark.parametrize("name", TABLES)
def test_a_page_has_the_table_that_the_code_makes(name: str):
    path, make = TABLES[name]
    assert part_of(path.read_text(), name)[2] == make(), "run `python -m tools.tables`"
