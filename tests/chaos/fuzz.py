"""Bytes and JSON that were right once: values of other kinds, sizes and depths, cut off, doubled, turned over."""

import json
import random
from typing import Any

STRANGE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**400, -(2**63), 0.5, float("nan"), float("inf"), -1e308),
    *("", "\0", "../../etc/passwd", "/etc/passwd", "a" * 100_000, "\ud800", "\u202e", "$(id)", "%s%n", "{0.__class__}"),
    *([], {}, [[]], [None] * 1000, {"__class__": "os.system"}, ["../x"], {"": 0}, [1, "2", None]),
)
DEEP = '{"a":' * 5000 + "1" + "}" * 5000


def mutate_value(value: Any, chance: random.Random) -> Any:
    """The JSON value with something strange somewhere in it."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        name = chance.choice(list(value))
        changed = dict(value)
        what = chance.random()
        if what < 0.15:
            del changed[name]
        elif what < 0.25:
            changed[chance.choice(["x", "", "__proto__", "a" * 1000])] = chance.choice(STRANGE)
        else:
            changed[name] = mutate_value(value[name], chance)
        return changed
    if isinstance(value, list) and value and chance.random() < 0.6:
        at = chance.randrange(len(value))
        return [*value[:at], mutate_value(value[at], chance), *value[at + chance.randint(0, 1) :]]
    return chance.choice(STRANGE)


def mutate_json(value: Any, chance: random.Random) -> bytes:
    """JSON of the value, changed by one to three steps, and seldom damaged as bytes too."""
    if chance.random() < 0.02:
        return DEEP.encode()
    for _ in range(chance.randint(1, 3)):
        value = mutate_value(value, chance)
    data = json.dumps(value).encode(errors="replace")
    return mutate_bytes(data, chance) if chance.random() < 0.15 else data


def mutate_bytes(data: bytes, chance: random.Random) -> bytes:
    """The bytes cut off, doubled, with some of them others, or with some put in."""
    at = chance.randrange(len(data) + 1)
    what = chance.randrange(5)
    if what == 0:
        return data[:at]
    if what == 1:
        return data[:at] + data[at // 2 :]
    if what == 2:
        return data[:at] + chance.randbytes(chance.randint(1, 64)) + data[at:]
    changed = bytearray(data or b"\0")
    for _ in range(chance.randint(1, 8)):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)
