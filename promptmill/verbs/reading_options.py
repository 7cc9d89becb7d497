"""The flags that say how prompt files are read."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from promptmill.producer.prompts.files import Reading

F = TypeVar("F", bound=Callable[..., Any])

DIALECT_NAMES = ("kohya", "a1111", "openai")  # dialects.py's, which is loaded lazily; a test compares

_OPTIONS = (
    click.option(
        "--format",
        "format_",
        metavar="FORMAT",
        help="Format of FILE, if its name does not say: txt, jsonl, csv, tsv, parquet, xlsx; csv.gz and the like.",
    ),
    click.option(
        "--dialect",
        type=click.Choice(DIALECT_NAMES),
        help="Prompt lines of another program: kohya's or A1111's options, OpenAI's Batch file (recognised by itself).",
    ),
    click.option("--sheet", metavar="NAME", help="The sheet of an Excel workbook.  [the first]"),
    click.option("--prompt-column", metavar="COLUMN", help="The column with the prompts.  [prompt]"),
    click.option(
        "--column",
        "columns",
        multiple=True,
        metavar="FIELD=COLUMN",
        help="Read this field from this column; repeatable.",
    ),
    click.option(
        "--label",
        "labels",
        multiple=True,
        metavar="COLUMN",
        help="Keep this column as a label, whatever its name; repeatable.",
    ),
)


def reading_options(function: F) -> F:
    """The flags of `Reading`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def reading_of(given: Mapping[str, Any]) -> "Reading":
    """What the flags say. Raises click.UsageError for a column of no field, or two of one."""
    from promptmill.producer.prompts.files import Reading

    columns = dict(map(_column, given["columns"]))
    if given["prompt_column"]:
        columns = {"prompt": given["prompt_column"], **columns}
    if len(columns) < len(given["columns"]) + bool(given["prompt_column"]):
        raise click.UsageError("--column and --prompt-column: a field may have one column")
    return Reading(columns, frozenset(given["labels"]), given["format_"], given["dialect"], given["sheet"])


def _column(text: str) -> tuple[str, str]:
    from promptmill.producer.fields import ALIASES
    from promptmill.producer.prompts.columns import NAMES

    name, _, column = text.partition("=")
    field = name.strip().replace("-", "_")
    field = ALIASES.get(field, field)
    if not column or field not in NAMES:
        raise click.UsageError(f"--column {text}: expected FIELD=COLUMN, with a field of a job")
    return field, column
