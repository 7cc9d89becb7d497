"""What may become of a run that is there already, when a prompt file that was changed is given: the flags."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from promptmill.producer.growth import Change
    from promptmill.producer.outputs.output import Output

F = TypeVar("F", bound=Callable[..., Any])

_APPEND = click.option(
    "--append",
    is_flag=True,
    help="Add FILE's jobs to the run: of an edited file the new ones; with --run, of another file all.",
)
_REPLACE = click.option(
    "--replace-plan",
    is_flag=True,
    help="Replace the run's plan by FILE; images of jobs in both are kept.",
)


def growing_options(function: F) -> F:
    """--append and --replace-plan."""
    return _APPEND(_REPLACE(function))


def change_of(given: Mapping[str, Any]) -> "Change":
    """What the flags say. Raises UsageError for both."""
    from promptmill.producer.growth import Change

    if given["append"] and given["replace_plan"]:
        raise click.UsageError("--append and --replace-plan exclude each other: give one of them")
    return Change.APPEND if given["append"] else Change.REPLACE if given["replace_plan"] else Change.NONE


def start_in(root: "Output", run: str | None, sources: Sequence[str], change: "Change") -> int:
    """The index in the run at which the files' rows begin: another one's, of a run that is named, come behind."""
    from promptmill.producer.growth import start_of
    from promptmill.producer.plan_files import read_run

    return start_of(read_run(root.child(run)), sources, change) if run else 0
