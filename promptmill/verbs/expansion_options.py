"""The flags that say how rows are expanded into jobs."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from promptmill.producer.prompts.expand import Expansion

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--expand/--plain-prompts",
        "expand",
        default=None,
        help="Choose one of {a|b}, and a line for __name__, or leave them as text.  "
        "[text, unless --combinatorial or --wildcards is given]",
    ),
    click.option(
        "--combinatorial",
        is_flag=True,
        help="One job per combination of alternatives, instead of a random choice.",
    ),
    click.option(
        "--wildcards",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="FOLDER",
        help="Folder of wildcards: __NAME__ becomes a line of its NAME.txt.",
    ),
    click.option(
        "--wildcard-order",
        type=click.Choice(["random", "sequential", "shuffled"]),
        default="random",
        show_default=True,
        help="How a line is chosen: at random, or each once before any again, in order or shuffled.",
    ),
    click.option(
        "--images-per-prompt",
        "--num-images-per-prompt",
        "-n",
        type=click.IntRange(1, 1_000_000),
        default=1,
        show_default=True,
        help="Images per prompt, with consecutive seeds.",
    ),
    click.option(
        "--run-seed",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        help="Seed of the random choices, and of the seeds of rows without one.",
    ),
)


def expansion_options(function: F) -> F:
    """The flags of `Expansion`, the matrix aside."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def expansion_of(given: Mapping[str, Any], matrix: Mapping[str, tuple[Any, ...]]) -> "Expansion":
    """What the flags say. Alternatives are text unless somebody asks for what becomes of them."""
    from promptmill.producer.prompts.expand import Expansion

    names = ("combinatorial", "wildcards", "wildcard_order", "images_per_prompt", "run_seed")
    asked = given["expand"]
    plain = not (given["combinatorial"] or given["wildcards"] is not None) if asked is None else not asked
    return Expansion(
        plain=plain, unasked=plain and asked is None, matrix=matrix, **{name: given[name] for name in names}
    )
