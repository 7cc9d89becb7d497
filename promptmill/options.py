"""The options that several verbs share."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from producer.broker import DEFAULT_URL
from producer.job import FIELD_NAMES, SAMPLERS, SIGMA_SCHEDULES, TIMESTEP_SPACINGS

F = TypeVar("F", bound=Callable[..., Any])


class Pair(click.ParamType):
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


class Numbers(click.ParamType):
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


def env(name: str) -> str:
    return f"PROMPTMILL_{name.upper()}"


def _field(*flags: str, help: str, type: Any = str, **kwargs: Any) -> Callable[[F], F]:
    field = flags[0].partition("/")[0].removeprefix("--").replace("-", "_")
    return click.option(*flags, field, type=type, envvar=env(field), help=help, **kwargs)


_HEIGHT_WIDTH = "(height,width in pixels)"

JOB_OPTIONS = [
    _field("--model", help="pocket, tiny-random, a folder in diffusers' layout, or a hub id (org/name).  [pocket]"),
    _field("--prompt-2", help="Prompt of the second text encoder.  [the prompt]"),
    _field("--negative-prompt", help="What the picture should not show."),
    _field("--negative-prompt-2", help="The same for the second text encoder."),
    _field("--seed", type=int, help="Seed of every row that has none.  [the row's place in the run: 0, 1, ...]"),
    _field("--width", type=int, help="Pixels, a multiple of 8.  [the model's own]"),
    _field("--height", type=int, help="Pixels, a multiple of 8.  [the model's own]"),
    _field("--num-inference-steps", "--steps", type=int, help="Denoising steps.  [the model's own, or 50]"),
    _field("--guidance-scale", "--guidance", type=float, help="At most 1: no guidance.  [the model's own, or 5]"),
    _field("--sampler", "--scheduler", help=f"{', '.join(SAMPLERS)}.  [the model's own]"),
    _field("--timestep-spacing", help=f"{', '.join(TIMESTEP_SPACINGS)}.  [the model's own]"),
    _field("--sigma-schedule", help=f"{', '.join(SIGMA_SCHEDULES)}.  [the model's own]"),
    _field("--timesteps", type=Numbers(int), help="Training timesteps to visit, highest first."),
    _field("--sigmas", type=Numbers(float), help="Noise levels to visit, highest first."),
    _field("--eta", type=float, help="Noise of ddim and tcd, 0 to 1.  [0]"),
    _field("--guidance-rescale", type=float, help="0 to 1: against over-exposure by guidance.  [0]"),
    _field("--clip-skip", type=int, help="Layers of the text encoders left out, as in diffusers.  [0]"),
    _field("--prompt-chunks", type=int, help="Windows of 77 tokens for a long prompt; what is beyond is cut.  [1]"),
    _field("--prompt-weighting/--no-prompt-weighting", type=bool, help="Whether (word:1.3) weighs.  [no]"),
    _field("--refiner", help="A second model that finishes the picture: a folder, or a hub id."),
    _field("--denoising-end", type=float, help="Fraction at which the refiner takes over.  [after all]"),
    _field("--refiner-strength", type=float, help="How much the refiner renders anew after all steps.  [0.3]"),
    _field("--aesthetic-score", type=float, help="What the refiner aims at.  [6]"),
    _field("--negative-aesthetic-score", type=float, help="What it keeps away from.  [2.5]"),
    _field("--original-size", type=Pair(), help=f"Micro-conditioning {_HEIGHT_WIDTH}."),
    _field("--target-size", type=Pair(), help=f"Micro-conditioning {_HEIGHT_WIDTH}."),
    _field("--crops-coords-top-left", type=Pair(), help="Micro-conditioning (top,left)."),
    _field("--negative-original-size", type=Pair(), help=f"The same {_HEIGHT_WIDTH}."),
    _field("--negative-target-size", type=Pair(), help=f"The same {_HEIGHT_WIDTH}."),
    _field("--negative-crops-coords-top-left", type=Pair(), help="The same (top,left)."),
]


PRESET_OPTION = click.option(
    "--preset", envvar=env("preset"), help="Settings that a kind of checkpoint needs, such as lightning-4.  [its own]"
)


def job_options(function: F) -> F:
    """A flag for each field of a job but the prompt: the default of rows that do not say otherwise."""
    for option in reversed([*JOB_OPTIONS, PRESET_OPTION]):
        function = option(function)
    return function


def job_defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """The job fields among a verb's parameters, those that were given."""
    return {name: given[name] for name in FIELD_NAMES if given.get(name) is not None}


broker_option = click.option(
    "--broker",
    envvar=env("broker"),
    metavar="URL",
    help=f"Where Redis is: redis://[:password@]host:port/db.  [{DEFAULT_URL}]",
)

run_option = click.option("--run", "run", envvar=env("run"), help="The run's name.  [from the file and its jobs]")

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
