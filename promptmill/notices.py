"""News of a run for somebody who is not looking: a webhook, a command of the user's.

A webhook gets a POST with JSON: `event`, `run`, `output`, the counts, and the same as a sentence under `text` and
`content`, which is what Slack and Discord show. A command is run by the shell with NOTICE_EVENT, _RUN, _OUTPUT,
_IMAGES, _DONE, _FAILED and _CANCELLED in its environment, and the JSON on its standard input. Not PROMPTMILL_: those
would be settings of a `promptmill pack` that the command calls.
"""

import json
import os
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from promptmill.producer.backoff import backoff
from promptmill.producer.queue.ledger import RunStatus
from promptmill.producer.words import count

TRIES = 4
TIMEOUT_S = 10.0
FEW = 20
"""Settled jobs: a rate of fewer says nothing."""


@dataclass(frozen=True)
class Notices:
    """Where news go to. `say` hears what did not arrive: a lost notice harms no run."""

    webhook: str | None
    command: str | None
    say: Callable[[str], None]

    def send(self, event: str, status: RunStatus, url: str) -> None:
        """`event` is finished, cancelled or failing."""
        news = {
            "event": event,
            "run": status.run,
            "output": url,
            "images": status.images,
            "done": status.done,
            "failed": status.failed,
            "cancelled": status.cancelled,
        }
        if self.webhook:
            self._post(self.webhook, news)
        if self.command:
            self._execute(self.command, news)

    def _post(self, webhook: str, news: dict[str, Any]) -> None:
        text = _sentence(news)
        data = json.dumps({**news, "text": text, "content": text}, ensure_ascii=False).encode()
        headers = {"Content-Type": "application/json", "User-Agent": "promptmill"}
        pauses = backoff(first_s=0.5, most_s=5.0)
        for left in reversed(range(TRIES)):
            try:
                with urllib.request.urlopen(urllib.request.Request(webhook, data, headers), timeout=TIMEOUT_S):
                    return
            except urllib.error.HTTPError as error:
                problem = f"it answered {error.code}"
                if error.code < 500 and error.code != 429:
                    break
            except (OSError, ValueError) as error:
                problem = str(getattr(error, "reason", error))
            if left:
                time.sleep(next(pauses))
        # The rest of the address is a secret of Slack's and Discord's.
        self.say(f"the webhook at {urllib.parse.urlsplit(webhook).hostname} was not reached: {problem}")

    def _execute(self, command: str, news: dict[str, Any]) -> None:
        environ = {f"NOTICE_{name.upper()}": str(value) for name, value in news.items()}
        ended = subprocess.run(
            command, shell=True, env={**os.environ, **environ}, input=json.dumps(news), text=True, check=False
        )
        if ended.returncode:
            self.say(f"{command!r} ended with {ended.returncode}")


def is_failing(status: RunStatus, share: float) -> bool:
    """Whether more than that share of what is settled has failed."""
    settled = status.done + status.failed
    return settled >= min(FEW, status.images) and status.failed > share * settled


def _sentence(news: dict[str, Any]) -> str:
    text = f"{news['run']}: {news['event']}, {news['done']} of {count(news['images'], 'image')}"
    return text + (f", {news['failed']} failed" if news["failed"] else "") + f" ({news['output']})"
