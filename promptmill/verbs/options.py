"""The options that several verbs share."""

import contextlib
import functools
import io
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, cast

import click
from click.shell_completion import CompletionItem

from promptmill.producer.broker import DEFAULT_URL
from promptmill.producer.broker_url import BROKER_HELP
from promptmill.producer.fields import FIELD_NAMES, ROWS, FieldRow
from promptmill.producer.values import Form

F = TypeVar("F", bound=Callable[..., Any])


def completing(names: Iterable[str]) -> Callable[..., list[CompletionItem]]:
    """What a shell completes a value with; after a comma, the next one."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        before, comma, begun = incomplete.rpartition(",")
        return [CompletionItem(f"{before}{comma}{name}") for name in names if name.startswith(begun)]

    return complete


def _preset_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from promptmill.producer.families.presets import PRESETS

    return completing(PRESETS)(ctx, param, incomplete)


class Indexes(click.ParamType[Any]):
    """Indexes and ranges of them: `17`, `3,17-20`."""

    name = "N,N-M,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[range, ...]:
        return tuple(self._range(part.strip(), param, ctx) for part in str(value).split(","))

    def _range(self, part: str, param: click.Parameter | None, ctx: click.Context | None) -> range:
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            self.fail(f"{part!r} is not an index such as 17, or a range such as 17-20", param, ctx)
        return range(int(first), int(last if dash else first) + 1)


class Pair(click.ParamType[Any]):
    """Two whole numbers: `1024,1024` or `1024x1024`."""

    name = "A,B"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, list | tuple):
            value = ",".join(map(str, value))  # from promptmill.toml
        try:
            first, second = (int(part) for part in str(value).lower().replace("x", ",").split(","))
        except ValueError:
            self.fail(f"{value!r} is not two whole numbers such as 1024,1024", param, ctx)
        return first, second


class Sizes(click.ParamType[Any]):
    """Widths and heights in pixels, one number for a square: `1024,768x512`."""

    name = "N,WxH,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[tuple[int, int], ...]:
        return value if isinstance(value, tuple) else tuple(self._size(part, param, ctx) for part in value.split(","))

    def _size(self, part: str, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        width, cross, height = part.strip().lower().partition("x")
        if not width.isdecimal() or (cross and not height.isdecimal()):
            self.fail(f"{part!r} is not a size such as 1024 or 768x512", param, ctx)
        return int(width), int(height if cross else width)


class Numbers(click.ParamType[Any]):
    """Numbers with commas between: `999,749,499,249`."""

    name = "N,N,..."

    def __init__(self, kind: type[int] | type[float]) -> None:
        self._kind = kind

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...] | tuple[float, ...]:
        parts = value if isinstance(value, list | tuple) else str(value).split(",")  # a list is promptmill.toml's
        try:
            return tuple(self._kind(part) for part in parts)
        except (TypeError, ValueError):
            self.fail(f"{value!r} is not numbers with commas between, such as 999,749,499,249", param, ctx)


class Values(click.ParamType[Any]):
    """A value, or several with commas between: each prompt is rendered with each of them."""

    def __init__(self, kind: click.ParamType[Any]) -> None:
        self._kind = kind
        self.name = f"{kind.name},..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        parts = value if isinstance(value, list | tuple) else str(value).split(",")
        return tuple(self._kind.convert(part, param, ctx) for part in parts)


FLAG_TYPES: dict[Form, click.ParamType[Any]] = {
    "text": click.STRING,
    "truth": click.BOOL,
    "name": Values(click.STRING),
    "whole": Values(click.INT),
    "number": Values(click.FLOAT),
    "pair": Pair(),
    "wholes": Numbers(int),
    "numbers": Numbers(float),
}


def env(name: str) -> str:
    return f"PROMPTMILL_{name.upper()}"


def _job_option(name: str, row: FieldRow) -> Callable[[F], F]:
    flags = [f"--{one.replace('_', '-')}" for one in (name, *row.also)]
    if row.value.form == "truth":
        flags[0] += f"/--no-{name.replace('_', '-')}"
    choices = f" {', '.join(row.value.choices)}." if row.value.choices else ""
    return click.option(
        *flags,
        name,
        type=FLAG_TYPES[row.value.form],
        help=f"{row.help}{choices}  [{row.unset}]",
        shell_complete=completing(row.value.choices) if row.value.choices else None,
    )


JOB_OPTIONS = [_job_option(name, row) for name, row in ROWS.items() if name != "prompt"]


def field_options(*names: str) -> Callable[[F], F]:
    """The flags of some of a job's fields."""

    def add(function: F) -> F:
        for name in reversed(names):
            function = _job_option(name, ROWS[name])(function)
        return function

    return add


PRESET_OPTION = click.option(
    "--preset",
    help="Settings that a kind of checkpoint needs, such as lightning-4.  [the checkpoint's own]",
    shell_complete=_preset_names,
)


def job_options(function: F) -> F:
    """A flag for each field of a job but the prompt: the default of rows that do not say otherwise.

    Those of numbers and names take several values with commas between: each row's prompt is then rendered with each.
    """
    for option in reversed([*JOB_OPTIONS, PRESET_OPTION]):
        function = option(function)
    return function


MATRIX_FIELDS = frozenset(name for name, row in ROWS.items() if isinstance(FLAG_TYPES[row.value.form], Values))


def job_defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """The job fields among a verb's parameters, those that were given with one value."""
    said = {name: given[name] for name in FIELD_NAMES if given.get(name) is not None}
    single = {name: value[0] for name, value in said.items() if name in MATRIX_FIELDS and len(value) == 1}
    return {**{name: value for name, value in said.items() if name not in MATRIX_FIELDS}, **single}


def job_matrix(given: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    """The job fields that were given with several values."""
    return {name: given[name] for name in MATRIX_FIELDS if given.get(name) is not None and len(given[name]) > 1}


broker_option = click.option(
    "--broker",
    metavar="URL",
    help=f"{BROKER_HELP}  [{DEFAULT_URL}]",
)

run_option = click.option("--run", "run", help="The run's name.  [from the file and its jobs]")


def json_option(function: F) -> F:
    """`--json` and `--quiet`, of every verb that answers. Errors are shown after the verb, so they are heard anyway."""

    @functools.wraps(function)
    def command(*args: Any, quiet: bool, **kwargs: Any) -> Any:
        with contextlib.redirect_stderr(io.StringIO()) if quiet else contextlib.nullcontext():
            return function(*args, **kwargs)

    as_json = click.option("--json", "as_json", is_flag=True, help="Print the result, or the error, as JSON.")
    return as_json(
        click.option("--quiet", "-q", is_flag=True, help="Print nothing but data and errors.")(cast(F, command))
    )
