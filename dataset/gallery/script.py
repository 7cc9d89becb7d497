"""Data as scripts, since a page that is opened from the disk may load scripts, but fetch nothing.

What users wrote is text in a string of JSON in a string of JavaScript, and is parsed as JSON: no name (`__proto__`)
and no value of it can become anything else.
"""

import json
from typing import Any

_ESCAPES = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029'\x7f"}
_ESCAPES[ord("\\")] = "\\\\"


def call(function: str, *values: Any) -> bytes:
    """A script that calls `promptmill.FUNCTION` with each value as a text of JSON; the same bytes for equal values.

    `<` does not stand in it, so it may also lie inside a page, nor does what ends a line for JavaScript.
    """
    texts = (json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False) for value in values)
    return f"promptmill.{function}({','.join(map(_literal, texts))});\n".encode()


def _literal(text: str) -> str:
    return f"'{text.translate(_ESCAPES)}'"
