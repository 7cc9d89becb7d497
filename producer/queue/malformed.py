"""Entries of the streams that nobody can read: set aside with their bytes, counted, and told; never in anybody's way.

Only promptmill writes into its streams, so these come of another version, a hand, or another program in the same Redis.
"""

import base64
import json
from collections.abc import Mapping
from typing import Any

import redis

from promptmill.producer.job import Shape
from promptmill.producer.queue.keys import MALFORMED, MALFORMED_COUNT
from promptmill.producer.queue.scripts import Script

KEPT = 1000
"""Entries: the last ones."""


class MalformedEntry(ValueError):
    """An entry of a stream that is not a job; the text says why."""


class Malformed:
    """What was set aside in one Redis."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis: Any = client
        self._set_aside = Script(client, "set_aside")

    def set_aside(self, run: str, shape: Shape, entry: str, fields: Mapping[bytes, bytes], reason: str) -> int:
        """Take an entry out of its stream and keep it here; how many there were so far."""
        told = {base64.b64encode(k).decode(): base64.b64encode(v).decode() for k, v in fields.items()}
        kept = {"run": run, "shape": shape.key, "entry": entry, "reason": reason, "fields_base64": told}
        return int(self._set_aside(run, shape.key, entry, json.dumps(kept), KEPT))

    def count(self) -> int:
        """How many there were, since this Redis was new."""
        number = str(self._redis.get(MALFORMED_COUNT) or 0)
        return int(number) if number.isdecimal() and len(number) < 16 else 0

    def last(self, count: int = 10) -> list[dict[str, Any]]:
        """The last ones, newest first, as `set_aside` kept them."""
        kept = map(_kept, self._redis.lrange(MALFORMED, 0, count - 1))
        return [one for one in kept if one]


def _kept(text: str) -> dict[str, Any] | None:
    try:
        told = json.loads(text)
        json.dumps(told, ensure_ascii=False).encode()  # half a character cannot be shown
        return {**told, "run": str(told["run"]), "reason": str(told["reason"])}
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
