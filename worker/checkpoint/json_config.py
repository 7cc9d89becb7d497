"""What a diffusers folder's JSON files say, as frozen dataclasses.

Defaults are those of the diffusers 0.42 and transformers 5 constructors, which is what a missing field means.
A field is one of three kinds: a dataclass field (implemented), `FIXED` (implemented for these values only),
or `WITHOUT_EFFECT` (cannot change a rendered pixel). Anything else raises: nothing is silently ignored.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, get_type_hints

from promptmill.worker.checkpoint.config_types import KINDS, check_types
from promptmill.worker.errors import ConfigError

SILU = ("silu", "swish")


def names(text: str) -> frozenset[str]:
    return frozenset(text.split())


@dataclass(frozen=True)
class JsonConfig:
    """Reads itself from one JSON file, and refuses what it does not know."""

    FIXED: ClassVar[dict[str, tuple[Any, ...]]] = {}
    WITHOUT_EFFECT: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read `path`; ConfigError names the file, the field, what it holds and what is understood."""
        values = cls._given(read_json(path))
        known = cls.hints()
        for name, value in values.items():
            if name.startswith("_") or name in cls.WITHOUT_EFFECT or name in known:
                continue
            if name not in cls.FIXED:
                raise ConfigError(f"{path}: {name} is {value!r}, but this field is not implemented")
            if value not in cls.FIXED[name]:
                raise unexpected(path, name, value, cls.FIXED[name])
        given = {name: value for name, value in values.items() if name in known}
        check_types(path, known, given)
        try:
            return cls(**{name: _frozen(value) for name, value in given.items()})
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error

    @classmethod
    def hints(cls) -> dict[str, Any]:
        """The fields that are implemented, and the type of each."""
        hints = get_type_hints(cls)
        return {field.name: hints[field.name] for field in dataclasses.fields(cls)}

    @classmethod
    def _given(cls, values: dict[str, Any]) -> dict[str, Any]:
        return values

    def _check(self, name: str, expected: tuple[Any, ...]) -> None:
        if getattr(self, name) not in expected:
            raise unexpected(None, name, getattr(self, name), expected)

    def _check_above_zero(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            numbers = value if isinstance(value, tuple) else (value,)
            if not numbers or any(number is not None and number <= 0 for number in numbers):
                raise ConfigError(f"{name} is {value!r}, expected more than 0")

    def _check_divides(self, name: str, widths: tuple[int, ...]) -> None:
        for width in widths:
            if width % getattr(self, name):
                raise ConfigError(f"{name} is {getattr(self, name)}, which does not divide {width} channels")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`; ConfigError where there is none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: is not there, but the model needs it") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}: is not valid JSON from line {error.lineno}, column {error.colno} on") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, thousands of digits, thousands of brackets
        raise ConfigError(f"{path}: is not valid JSON") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a JSON object, got {KINDS[type(values)]}")
    return values


def unexpected(path: Path | None, name: str, value: Any, expected: tuple[Any, ...]) -> ConfigError:
    where = f"{path}: " if path else ""
    return ConfigError(f"{where}{name} is {value!r}, but only {' or '.join(map(repr, expected))} is implemented")


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
