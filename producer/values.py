"""What a field of a job can take: one function per kind of value, which gives its check and its words.

A check takes the field's name and a value, and returns the value as the job keeps it, or raises JobError.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from promptmill.producer.errors import JobError

T = TypeVar("T")

Check = Callable[[str, Any], T]

Form = Literal["text", "name", "truth", "whole", "number", "pair", "wholes", "numbers"]
"""How a value is written in a table's cell (prompts/columns.py) and after a flag (the front door's options.py)."""

MAX_PROMPT_CHARS = 10_000
MAX_EXACT = 2**53 - 1  # the last whole number that no other one is rounded to as a float
MAX_ITEMS = 1000  # of a list: the number of training timesteps

_UNFIT = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")  # all of ASCII's controls but tab and newline


@dataclass(frozen=True, slots=True)
class Value:
    """A kind of value: its check, the words of docs/prompt-files.md for it, how it is written, its names if few."""

    check: Check[Any]
    words: str
    form: Form
    choices: tuple[str, ...] = ()


def text(words: str = "text") -> Value:
    """Text that can be tokenised; it may be empty."""
    return Value(check_text, words, "text")


def prompt() -> Value:
    """Text that is not empty."""

    def check(field: str, value: Any) -> str:
        found = check_text(field, value)
        if not found.strip():
            raise JobError(field, "is empty")
        return found

    return Value(check, "text, not empty", "text")


def model_name(words: str) -> Value:
    """A hub id or a folder, of one line."""

    def check(field: str, value: Any) -> str:
        name = check_text(field, value)
        if not name.strip() or "\n" in name:
            raise JobError(field, "must be a hub id (org/name) or a folder, got an empty name")
        return name

    return Value(check, words, "text")


def one_of(names: tuple[str, ...]) -> Value:
    def check(field: str, value: Any) -> str:
        if value not in names:
            raise JobError(field, f"must be one of {', '.join(names)}; got {shown(value)}")
        return str(value)

    return Value(check, "one of " + ", ".join(f"`{name}`" for name in names), "name", names)


def truth() -> Value:
    def check(field: str, value: Any) -> bool:
        if not isinstance(value, bool):
            raise JobError(field, f"must be true or false, got {shown(value)}")
        return value

    return Value(check, "true or false", "truth")


def whole(low: int, high: int, multiple_of: int = 1) -> Value:
    """A whole number from `low` to `high`."""
    within = _whole(low, high)

    def check(field: str, value: Any) -> int:
        number = within(field, value)
        if number % multiple_of:
            raise JobError(field, f"must be a multiple of {multiple_of}, got {number}")
        return number

    words = f"whole number, {low} to {high}"
    if multiple_of == 1:
        return Value(within, words, "whole")
    return Value(check, f"{words}, a multiple of {multiple_of}", "whole")


def number(low: float, high: float, *, below: bool = False) -> Value:
    """A number from `low` to `high`, or with `below` from `low` to less than `high`."""
    words = f"at least {low:g} and less than {high:g}" if below else f"{low:g} to {high:g}"
    return Value(_number(low, high, below), f"number, {words}", "number")


def fraction(*, may_be_1: bool) -> Value:
    """A number above 0, and under 1 or at most 1."""
    most = "at most" if may_be_1 else "less than"

    def check(field: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise JobError(field, f"must be a number, got {shown(value)}")
        if not 0 < value <= 1 or (value == 1 and not may_be_1):
            raise JobError(field, f"must be more than 0 and {most} 1, got {shown(value)}")
        return float(value)

    return Value(check, f"number, more than 0 and {most} 1", "number")


def pair(low: int, high: int) -> Value:
    """Two whole numbers."""
    within = _whole(low, high)

    def check(field: str, value: Any) -> tuple[int, int]:
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise JobError(field, f"must be two whole numbers, got {shown(value)}")
        return within(field, value[0]), within(field, value[1])

    return Value(check, f"two whole numbers, {low} to {high}", "pair")


def wholes(low: int, high: int) -> Value:
    """A list of whole numbers."""
    return Value(_list_of(_whole(low, high)), f"list of whole numbers, {low} to {high}", "wholes")


def numbers(low: float, high: float) -> Value:
    """A list of numbers."""
    return Value(_list_of(_number(low, high)), f"list of numbers, {low:g} to {high:g}", "numbers")


def check_text(field: str, value: Any) -> str:
    """Text that can be tokenised and stored: UTF-8, no control characters but newline and tab. Raises JobError."""
    if not isinstance(value, str):
        raise JobError(field, f"must be text, got {shown(value)}")
    if len(value) > MAX_PROMPT_CHARS:
        raise JobError(field, f"must be at most {MAX_PROMPT_CHARS} characters, got {len(value)}")
    check_characters(field, value)
    return value


def check_characters(field: str, text: str) -> None:
    """Raises JobError for control characters but newline and tab, and for what is not Unicode."""
    bad = _UNFIT.search(text)
    if bad:
        what = "half a surrogate pair" if bad[0] >= "\ud800" else "a control character"
        raise JobError(field, f"has {what} (U+{ord(bad[0]):04X}) at character {bad.start() + 1}")


def shown(value: Any) -> str:
    """The value for a message: short, and of one line, whatever it is."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, a list in a list in a list...
        text = f"a huge {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _whole(low: int, high: int) -> Check[int]:
    def check(field: str, value: Any) -> int:
        if isinstance(value, float) and value.is_integer():
            if abs(value) > MAX_EXACT:
                why = f"{shown(value)} is a float, and those beyond 2^53 are rounded"
                raise JobError(field, f"must be written as a whole number: {why}")
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise JobError(field, f"must be a whole number, got {shown(value)}")
        if not low <= value <= high:
            raise JobError(field, f"must be from {low} to {high}, got {shown(value)}")
        return value

    return check


def _number(low: float, high: float, below: bool = False) -> Check[float]:
    def check(field: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise JobError(field, f"must be a number, got {shown(value)}")
        if not low <= value <= high or (below and value == high):  # a NaN is neither
            expected = f"at least {low:g} and less than {high:g}" if below else f"from {low:g} to {high:g}"
            raise JobError(field, f"must be {expected}, got {shown(value)}")
        return float(value) + 0.0  # -0.0 and 0.0 are one job

    return check


def _list_of(check_item: Check[T]) -> Check[tuple[T, ...]]:
    def check(field: str, value: Any) -> tuple[T, ...]:
        if not isinstance(value, list | tuple) or not 1 <= len(value) <= MAX_ITEMS:
            raise JobError(field, f"must be a list of 1 to {MAX_ITEMS} numbers, got {shown(value)}")
        return tuple(check_item(field, item) for item in value)

    return check
