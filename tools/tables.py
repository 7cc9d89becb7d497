"""Write the tables of the docs that are made from tables of the code: `python -m tools.tables`.

A page has a table between `<!-- NAME: ... -->` and `<!-- end of NAME -->`. tests/tools/test_tables.py compares.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from promptmill.producer.fields import ROWS

DOCS = Path(__file__).parents[1] / "docs"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def fields_table() -> str:
    """The fields of a job, from producer/fields.py."""
    rows = [
        (
            ", ".join(f"`{one}`" for one in (name, *row.also)),
            row.help.rstrip("."),
            row.value.words,
            row.unset,
            row.compiles,
        )
        for name, row in ROWS.items()
    ]
    return table(("field", "what it is", "values", "without it", "compiled for"), rows)


TABLES: dict[str, tuple[Path, Callable[[], str]]] = {
    "fields": (DOCS / "prompt-files.md", fields_table),
}
"""Each table's page, and what makes it."""


def part_of(page: str, name: str) -> re.Match[str]:
    """The table of this name on a page: its opening, its text, its end."""
    found = re.search(rf"(<!-- {name}: .*? -->\n)(.*?)(<!-- end of {name} -->)", page, re.DOTALL)
    assert found, f"there is no <!-- {name}: --> on the page"
    return found


def main() -> None:
    for name, (path, make) in TABLES.items():
        page = path.read_text()
        found = part_of(page, name)
        path.write_text(f"{page[: found.start()]}{found[1]}{make()}{found[3]}{page[found.end() :]}")


if __name__ == "__main__":
    main()
