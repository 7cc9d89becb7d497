"""A line of a JSON log: what log handlers write, and who writes past them."""

import json
import time
from datetime import UTC, datetime
from typing import Any


def json_line(level: str, message: str, *, logger: str = "promptmill", at: float | None = None, **more: Any) -> str:
    """One object, without the line's end. `at` is in seconds since the epoch; now, where it is not given."""
    when = datetime.fromtimestamp(time.time() if at is None else at, UTC).isoformat(timespec="milliseconds")
    told = {"time": when, "level": level, "logger": logger, "message": message, **more}
    return json.dumps(told, ensure_ascii=False, default=str)
