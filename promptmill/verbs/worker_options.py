"""The options of a worker, from its table of settings: of `worker`, and some of `render`, which starts one."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from promptmill.verbs.options import env
from promptmill.worker.settings import SETTINGS, Setting

F = TypeVar("F", bound=Callable[..., Any])


def _type(row: Setting) -> click.ParamType[Any]:
    if row.choices and not row.several:
        return click.Choice(row.choices, case_sensitive=False)
    if row.kind == "whole":
        return click.IntRange(None if row.low is None else int(row.low), None if row.high is None else int(row.high))
    return click.FloatRange(row.low, row.high) if row.kind == "number" else click.STRING


def _option(name: str, row: Setting) -> Callable[[F], F]:
    if row.kind == "truth":
        flag = f"{row.flags[0]}/--no-{row.flags[0].lstrip('-')}"
        return click.option(flag, name, default=None, help=f"{row.help}  [{row.unset}]")
    return click.option(*row.flags, name, type=_type(row), metavar=row.metavar, help=f"{row.help}  [{row.unset}]")


def _add(function: F, rows: Mapping[str, Setting]) -> F:
    for name, row in reversed(list(rows.items())):
        function = _option(name, row)(function)
    return function


def worker_options(function: F) -> F:
    """Adds a flag for each setting; a value that is not given is None."""
    return _add(function, {name: row for name, row in SETTINGS.items() if not row.internal})


def setting_options(*names: str) -> Callable[[F], F]:
    """The flags of some settings."""
    return lambda function: _add(function, {name: SETTINGS[name] for name in names})


CHECKS = {name: row for name, row in SETTINGS.items() if row.checks}


def check_options(function: F) -> F:
    """Adds the flags that say how images are checked and marked; a value that is not given is None."""
    return _add(function, CHECKS)


def check_environ(given: Mapping[str, Any]) -> dict[str, str]:
    """The given options as a child's environment, for the worker that `render` starts."""
    return {env(name): str(given[name]) for name in CHECKS if given.get(name) is not None}
