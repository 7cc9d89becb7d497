"""The options that say how a worker checks and marks images: of `worker`, and of `render`, which starts one."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from promptmill.verbs.options import env

F = TypeVar("F", bound=Callable[..., Any])

ON_UNSAFE = (
    "black",
    "blur",
    "keep",
    "fail",
)  # worker/settings.py's, which this package loads lazily; a test compares

CHECK_OPTIONS = {
    "safety_checker": click.option(
        "--safety-checker",
        envvar=env("safety_checker"),
        metavar="MODEL",
        help="Check images: a folder or a hub id, as CompVis/stable-diffusion-safety-checker.  [no check]",
    ),
    "image_check": click.option(
        "--image-check",
        envvar=env("image_check"),
        metavar="MODULE:FUNCTION",
        help="A check of your own; several with commas between.",
    ),
    "on_unsafe": click.option(
        "--on-unsafe",
        type=click.Choice(ON_UNSAFE),
        envvar=env("on_unsafe"),
        help="What becomes of a flagged image.  [black]",
    ),
    "watermark": click.option(
        "--watermark/--no-watermark",
        default=None,
        envvar=env("watermark"),
        help="SDXL's invisible watermark.  [no]",
    ),
}


def check_options(function: F) -> F:
    """Adds the options; a value that is not given is None."""
    for option in reversed(CHECK_OPTIONS.values()):
        function = option(function)
    return function


def check_environ(given: Mapping[str, Any]) -> dict[str, str]:
    """The given options as a child's environment, for the worker that `render` starts."""
    return {env(name): str(given[name]) for name in CHECK_OPTIONS if given.get(name) is not None}
