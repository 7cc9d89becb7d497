"""What a verb says on stderr: text, or a line of a JSON log where `promptmill worker --log-format json` was typed."""

import itertools
import os
import sys

from promptmill.producer.json_line import json_line
from promptmill.worker.settings import PREFIX


def logs_json() -> bool:
    """Whether the command is a worker's that logs JSON. Asked before its flags are read, as they may be wrong."""
    words = sys.argv[1:]
    if "worker" not in words:
        return False
    given = [after for word, after in itertools.pairwise(words) if word == "--log-format"]
    given += [word.partition("=")[2] for word in words if word.startswith("--log-format=")]
    return (given or [os.environ.get(f"{PREFIX}LOG_FORMAT", "")])[-1] == "json"


def line(level: str, sentence: str) -> str:
    """The sentence as this command writes it."""
    return json_line(level, sentence.removeprefix("promptmill: ")) if logs_json() else sentence
