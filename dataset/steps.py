"""What a repair does, told thing by thing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from promptmill.producer.plan import Plan

Action = Literal["set aside", "restored", "rendered", "rebuilt", "left"]

Render = Callable[[Plan, Sequence[int]], Mapping[int, str]]
"""Renders the jobs at these indexes, whose images are not there; returns why others failed, by index."""


@dataclass(frozen=True)
class Step:
    """One thing that was done or, where it is `left`, could not be. `detail`: from where, to where, or why."""

    name: str
    action: Action
    detail: str = ""
    index: int | None = None
