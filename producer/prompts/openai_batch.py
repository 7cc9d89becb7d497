"""OpenAI's Batch file for images, unchanged (platform.openai.com/docs/guides/batch):

{"custom_id": "a-1", "method": "POST", "url": "/v1/images/generations", "body": {"prompt": "...", "n": 2, ...}}
"""

import re
from collections.abc import Mapping
from typing import Any

from promptmill.producer.errors import JobError
from promptmill.producer.models import BUILT_IN, is_hub_id
from promptmill.producer.prompts.columns import IMAGES, NAMES, Said, shown_name

URL = "/v1/images/generations"
CUSTOM_ID = "custom_id"
"""The request's own name: a label, by which `promptmill export --openai` answers it."""

_REQUEST = (CUSTOM_ID, "method", "url", "body")
_SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")


def is_request(row: Mapping[str, Any]) -> bool:
    """Whether a JSON object is surely a request of a Batch file: no prompt, and all of its keys."""
    return "body" in row and CUSTOM_ID in row and "url" in row and "prompt" not in row


def request(row: Mapping[str, Any]) -> Said:
    """A request's fields, its `custom_id` as a label, and the names that mean nothing here. Raises JobError."""
    missing = next((name for name in _REQUEST if row.get(name) is None), None)
    if missing:
        raise JobError(missing, "is missing: a request of a Batch file has custom_id, method, url and body")
    body = row["body"]
    if row["method"] != "POST" or row["url"] != URL:
        name, wanted = ("method", "POST") if row["method"] != "POST" else ("url", URL)
        raise JobError(name, f"must be {wanted}, got {str(row[name])[:60]!r}")
    if not isinstance(row[CUSTOM_ID], str) or not row[CUSTOM_ID]:
        raise JobError(CUSTOM_ID, f"must be text, got {str(row[CUSTOM_ID])[:60]!r}")
    if not isinstance(body, dict):
        raise JobError("body", f"must be a JSON object, got {type(body).__name__}")
    fields, unused = _of_body(body)
    return Said(
        fields, {CUSTOM_ID: row[CUSTOM_ID]}, (*unused, *(shown_name(name) for name in row if name not in _REQUEST))
    )


def _of_body(body: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    fields: dict[str, Any] = {}
    unused = []
    for name, value in body.items():
        if value is None:
            continue
        if name == "n":
            fields[IMAGES] = value
        elif name == "size":
            fields |= _size(value)
        elif name == "model" and not _is_ours(value):
            unused.append(name)
        elif name in NAMES:
            fields[name] = value
        else:
            unused.append(shown_name(name))
    return fields, unused


def _size(value: Any) -> dict[str, int]:
    """Width and height; `auto` is the model's own."""
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if value != "auto" and not found:
        raise JobError("size", f"must be WIDTHxHEIGHT in pixels, such as 1024x1024, or auto; got {str(value)[:40]!r}")
    return {"width": int(found[1]), "height": int(found[2])} if found else {}


def _is_ours(model: Any) -> bool:
    """Whether it can name a model of ours; `gpt-image-1` cannot."""
    return not isinstance(model, str) or model in BUILT_IN or is_hub_id(model) or model.startswith("/")
