"""YAML of what JSON can hold, one line per value: a card's head is read by people too."""

import json
from collections.abc import Iterator
from typing import Any


def yaml_of(value: Any) -> str:
    """Mappings and lists as blocks; texts as JSON writes them, which YAML reads."""
    return "".join(f"{line}\n" for line in _lines(value))


def _lines(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _after(f"{name}:", inner, " " * (0 if isinstance(inner, list) else 2))
    else:
        for inner in value:
            first, *rest = list(_lines(inner)) if isinstance(inner, dict | list) and inner else [json.dumps(inner)]
            yield f"- {first}"
            yield from (f"  {line}" for line in rest)


def _after(head: str, value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, dict | list) and value:
        yield head
        yield from (f"{indent}{line}" for line in _lines(value))
    else:
        yield f"{head} {json.dumps(value, ensure_ascii=False)}"
