"""The options that several verbs share."""

import contextlib
import functools
import io
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, cast

import click
from click.shell_completion import CompletionItem

from promptmill.producer.broker import DEFAULT_URL
from promptmill.producer.job import FIELD_NAMES, SAMPLERS, SIGMA_SCHEDULES, TIMESTEP_SPACINGS

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


INTS, FLOATS, NAMES = Values(click.INT), Values(click.FLOAT), Values(click.STRING)


def env(name: str) -> str:
    return f"PROMPTMILL_{name.upper()}"


def _field(*flags: str, help: str, type: Any = str, **kwargs: Any) -> Callable[[F], F]:
    field = flags[0].partition("/")[0].removeprefix("--").replace("-", "_")
    return click.option(*flags, field, type=type, envvar=env(field), help=help, **kwargs)


_HEIGHT_WIDTH = "(height,width in pixels)"

JOB_OPTIONS = [
    _field("--model", help="pocket, tiny-random, a folder in diffusers' layout, or a hub id (org/name).  [pocket]"),
    _field("--prompt-2", help="Prompt of the second text encoder.  [the prompt]"),
    _field("--negative-prompt", help="What the image should not show."),
    _field("--negative-prompt-2", help="The same for the second text encoder."),
    _field("--seed", type=INTS, help="Seed of every row that has none.  [the row's index in the run: 0, 1, ...]"),
    _field("--width", type=INTS, help="Pixels, a multiple of 8.  [the model's own]"),
    _field("--height", type=INTS, help="Pixels, a multiple of 8.  [the model's own]"),
    _field("--num-inference-steps", "--steps", type=INTS, help="Denoising steps.  [the model's own, or 50]"),
    _field("--guidance-scale", "--guidance", type=FLOATS, help="At most 1: no guidance.  [the model's own, or 5]"),
    _field(
        "--sampler",
        "--scheduler",
        type=NAMES,
        help=f"{', '.join(SAMPLERS)}.  [the model's own]",
        shell_complete=completing(SAMPLERS),
    ),
    _field("--timestep-spacing", type=NAMES, help=f"{', '.join(TIMESTEP_SPACINGS)}.  [the model's own]"),
    _field("--sigma-schedule", type=NAMES, help=f"{', '.join(SIGMA_SCHEDULES)}.  [the model's own]"),
    _field("--timesteps", type=Numbers(int), help="Training timesteps to visit, highest first."),
    _field("--sigmas", type=Numbers(float), help="Noise levels to visit, highest first."),
    _field("--eta", type=FLOATS, help="Noise of ddim and tcd, 0 to 1.  [0]"),
    _field("--guidance-rescale", type=FLOATS, help="0 to 1: against over-exposure by guidance.  [0]"),
    _field("--clip-skip", type=INTS, help="Layers of the text encoders left out, as in diffusers.  [0]"),
    _field("--prompt-windows", type=INTS, help="Windows of 77 tokens for a long prompt; what is beyond is cut.  [1]"),
    _field("--prompt-weighting/--no-prompt-weighting", type=bool, help="Whether (word:1.3) weighs.  [no]"),
    _field("--refiner", help="A second model that finishes the image: a folder, or a hub id."),
    _field("--denoising-end", type=FLOATS, help="Fraction at which the refiner takes over.  [after all]"),
    _field("--refiner-strength", type=FLOATS, help="How much the refiner renders anew after all steps.  [0.3]"),
    _field("--aesthetic-score", type=FLOATS, help="What the refiner aims at.  [6]"),
    _field("--negative-aesthetic-score", type=FLOATS, help="What it keeps away from.  [2.5]"),
    _field("--original-size", type=Pair(), help=f"Micro-conditioning {_HEIGHT_WIDTH}."),
    _field("--target-size", type=Pair(), help=f"Micro-conditioning {_HEIGHT_WIDTH}."),
    _field("--crops-coords-top-left", type=Pair(), help="Micro-conditioning (top,left)."),
    _field("--negative-original-size", type=Pair(), help=f"The same {_HEIGHT_WIDTH}."),
    _field("--negative-target-size", type=Pair(), help=f"The same {_HEIGHT_WIDTH}."),
    _field("--negative-crops-coords-top-left", type=Pair(), help="The same (top,left)."),
]


PRESET_OPTION = click.option(
    "--preset",
    envvar=env("preset"),
    help="Settings that a kind of checkpoint needs, such as lightning-4.  [its own]",
    shell_complete=_preset_names,
)


def job_options(function: F) -> F:
    """A flag for each field of a job but the prompt: the default of rows that do not say otherwise.

    Those of numbers and names take several values with commas between: each row's prompt is then rendered with each.
    """
    for option in reversed([*JOB_OPTIONS, PRESET_OPTION]):
        function = option(function)
    return function


def _params(options: Iterable[Callable[[Any], Any]]) -> list[click.Parameter]:
    """The parameters that these decorators add."""

    def anything() -> None: ...

    for option in options:
        option(anything)
    params: list[click.Parameter] = anything.__click_params__  # type: ignore[attr-defined]
    return params


MATRIX_FIELDS = frozenset(str(param.name) for param in _params(JOB_OPTIONS) if isinstance(param.type, Values))


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
    envvar=env("broker"),
    metavar="URL",
    help=f"Where Redis is: redis://[:password@]host:port/db.  [{DEFAULT_URL}]",
)

run_option = click.option("--run", "run", envvar=env("run"), help="The run's name.  [from the file and its jobs]")


def json_option(function: F) -> F:
    """`--json` and `--quiet`, of every verb that answers. Errors are shown after the verb, so they are heard anyway."""

    @functools.wraps(function)
    def command(*args: Any, quiet: bool, **kwargs: Any) -> Any:
        with contextlib.redirect_stderr(io.StringIO()) if quiet else contextlib.nullcontext():
            return function(*args, **kwargs)

    as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON; an error, too.")
    return as_json(click.option("--quiet", "-q", is_flag=True, help="Say nothing but errors.")(cast(F, command)))
