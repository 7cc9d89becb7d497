"""Prompt files as other programs have them. A new dialect is one function and one row."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from promptmill.producer.prompts.columns import Said
from promptmill.producer.prompts.openai_batch import request
from promptmill.producer.prompts.option_lines import a1111, kohya


@dataclass(frozen=True)
class Dialect:
    """`of` makes fields of a line of a `.txt`, or of an object of a `.jsonl`. Raises JobError."""

    format: str
    of: Callable[[Any], Said]


DIALECTS: Mapping[str, Dialect] = {
    "kohya": Dialect(".txt", kohya),
    "a1111": Dialect(".txt", a1111),
    "openai": Dialect(".jsonl", request),
}
"""What --dialect takes."""
