"""Whether what a JSON file holds is of the type that a field's annotation names, and the words that say it is not."""

import math
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from promptmill.worker.errors import ConfigError

MAX_WHOLE = 2**63  # no field means more, and arithmetic with floats takes no more than some hundreds of digits

# In the words of JSON, not of Python.
KINDS: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "an object",
    NoneType: "null",
}


def check_types(path: Path, hints: Mapping[str, Any], values: dict[str, Any]) -> None:
    """ConfigError for the first of `values` that is not of the type which `hints` has for its name."""
    for name, value in values.items():
        if not _fits(value, hints[name]):
            raise ConfigError(f"{path}: {name} is {value!r}, expected {_words(hints[name])}")


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) in (UnionType, Union):
        return any(_fits(value, choice) for choice in get_args(hint))
    if get_origin(hint) is tuple:
        return isinstance(value, list) and _items_fit(value, get_args(hint))
    if hint is int or hint is float:
        # Python counts true as 1; JSON does not. It also reads NaN and Infinity, which are not valid JSON.
        kinds = (int, float) if hint is float else (int,)
        if not isinstance(value, kinds) or isinstance(value, bool):
            return False
        return math.isfinite(value) if isinstance(value, float) else abs(value) < MAX_WHOLE
    return isinstance(value, hint) if hint in KINDS else True  # such as Any, of which nothing can be checked


def _items_fit(items: list[Any], hints: tuple[Any, ...]) -> bool:
    if hints[-1] is Ellipsis:
        return all(_fits(item, hints[0]) for item in items)
    return len(items) == len(hints) and all(_fits(item, hint) for item, hint in zip(items, hints, strict=True))


def _words(hint: Any) -> str:
    if get_origin(hint) in (UnionType, Union):
        return " or ".join(_words(choice) for choice in get_args(hint))
    if get_origin(hint) is tuple:
        item, *others = get_args(hint)
        count = "" if others == [Ellipsis] else f"{len(others) + 1} times "
        return f"a list ({count}{_words(item)})"
    return KINDS.get(hint, "something else")
