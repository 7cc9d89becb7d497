"""Write the tables of the docs that are made from tables of the code: `python -m tools.tables`.

A page has a table between `<!-- NAME: ... -->` and `<!-- end of NAME -->`. tests/test_tables.py compares.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import click

from promptmill.cli import VERBS, WITHOUT_SETTINGS, cli
from promptmill.producer.fields import ROWS
from promptmill.worker.settings import SETTINGS, Setting

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


def worker_table() -> str:
    """The settings of a worker, from worker/settings.py."""
    rows = [
        (_code(row.flags), _code(row.variables), row.help.rstrip("."), _range(row), row.unset)
        for row in SETTINGS.values()
        if not row.internal
    ]
    return table(("flag", "variable", "what it is", "values", "without it"), rows)


def _range(row: Setting) -> str:
    if row.choices:
        return ", ".join(f"`{choice}`" for choice in row.choices)
    kinds = {"text": row.metavar or "text", "whole": "whole number", "number": "number", "truth": "true or false"}
    bounds = "".join(
        f"{word} {bound:g}" for word, bound in ((", from", row.low), (" to", row.high)) if bound is not None
    )
    return kinds[row.kind] + bounds


def flags_table() -> str:
    """All other flags, of whatever verb; those of one name and one meaning in one line."""
    verbs: dict[tuple[str, str, str], list[str]] = {}
    for verb in VERBS:
        if verb in WITHOUT_SETTINGS:
            continue
        for option in cli.get_command(click.Context(cli), verb).params:  # type: ignore[union-attr]
            if isinstance(option, click.Option) and option.name not in {*ROWS, *SETTINGS}:
                key = _code(option.opts), _code(option.envvar or ()), (option.help or "").rstrip(".")
                verbs.setdefault(key, []).append(verb)
    rows = [(flags, names, said, ", ".join(of)) for (flags, names, said), of in sorted(verbs.items())]
    return table(("flag", "variable", "what it is", "verbs"), rows)


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


TABLES: dict[str, tuple[Path, Callable[[], str]]] = {
    "fields": (DOCS / "prompt-files.md", fields_table),
    "worker": (DOCS / "settings.md", worker_table),
    "flags": (DOCS / "settings.md", flags_table),
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
