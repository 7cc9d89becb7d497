"""The keywords of `promptmill.submit` that are flags of the command: how jobs are read, expanded, and what they share.

The flags' own tables say which there are, so that a flag which is new is a keyword too; a test compares.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import click

from promptmill.producer.errors import PlanError
from promptmill.producer.job import canonical_names
from promptmill.producer.plan import PlanOptions
from promptmill.producer.prompts.expand import Expansion
from promptmill.verbs.expansion_options import expansion_of, expansion_options
from promptmill.verbs.image_options import encoding_of, image_options
from promptmill.verbs.options import MATRIX_FIELDS
from promptmill.verbs.reading_options import reading_of, reading_options

ALSO = {"num_images_per_prompt": "images_per_prompt", "format": "format_"}
"""Keywords whose flag has another name in the command."""

OF_ROWS = ("on_error", "rejects")


@cache
def flags() -> Mapping[str, Any]:
    """The flags that say how rows are read and expanded, with what they are where nobody gives them."""

    @image_options
    @expansion_options
    @reading_options
    def command() -> None:
        """Only its parameters are wanted."""

    return click.command()(command).make_context("submit", []).params


def plan_options(given: Mapping[str, Any], preset: str | None, expansion: Expansion | None, start: int) -> PlanOptions:
    """What the keywords say. A field with a list or tuple of values is a matrix. Raises PlanError."""
    named = {ALSO.get(name, name): value for name, value in given.items()}
    said = {name: value for name, value in named.items() if name in flags()}
    fields = canonical_names({name: value for name, value in named.items() if name not in (*said, *OF_ROWS)})
    matrix = {name: tuple(value) for name, value in fields.items() if _are_values(name, value)}
    if expansion is not None and (matrix or said.keys() & flags_of_expansion()):
        raise PlanError("expansion= replaces keywords such as expand= and wildcards=: leave those out")
    if isinstance(columns := said.get("columns"), Mapping):
        said["columns"] = tuple(f"{name}={column}" for name, column in columns.items())
    whole = {**flags(), "columns": (), "labels": (), **said}
    try:
        reading = reading_of(whole)
        whole["expand"] = False if _unasked(whole) else whole["expand"]
        expansion = expansion or expansion_of(whole, matrix)
        encoding = encoding_of(whole)
    except click.UsageError as error:
        raise PlanError(error.message) from error
    return PlanOptions(
        {name: value for name, value in fields.items() if name not in matrix},
        preset,
        reading=reading,
        expansion=expansion,
        start=start,
        encoding=encoding,
        **{name: named[name] for name in OF_ROWS if name in named},
    )


def flags_of_expansion() -> set[str]:
    """The keywords that an `Expansion` has."""
    return {"expand", "combinatorial", "wildcards", "wildcard_order", "images_per_prompt", "run_seed"}


def _unasked(given: Mapping[str, Any]) -> bool:
    """In Python braces are text, and nobody is warned of them."""
    return given["expand"] is None and not given["combinatorial"] and given["wildcards"] is None


def _are_values(name: str, value: Any) -> bool:
    return name in MATRIX_FIELDS and isinstance(value, list | tuple)
