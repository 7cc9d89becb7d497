"""News of a run for somebody who is not looking: a webhook, a command of the user's.

A webhook gets a POST with JSON: `event`, `run`, `output`, the counts, and the same as a sentence under `text` and
`content`, which is what Slack and Discord show. A command is run by the shell with NOTICE_EVENT, _RUN, _OUTPUT,
_IMAGES, _DONE, _FAILED and _CANCELLED in its environment, and the JSON on its standard input. Not PROMPTMILL_: those
would be settings of a `promptmill pack` that the command calls.
"""

import http.client
import json
import os
import subprocess
import threading
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
        pauses = backoff(first_s=0.5, most_s=5.0)
        for left in reversed(range(TRIES)):
            problem, again = _tried(webhook, data)
            if not problem:
                return
            if not (left and again):
                break
            time.sleep(next(pauses))
        # The rest of the address is a secret of Slack's and Discord's.
        self.say(f"the webhook at {urllib.parse.urlsplit(webhook).hostname} was not reached: {problem}")

    def _execute(self, command: str, news: dict[str, Any]) -> None:
        environ = {f"NOTICE_{name.upper()}": str(value) for name, value in news.items()}
        ended = subprocess.run(  # standard output is for our own data
            command, shell=True, env={**os.environ, **environ}, input=json.dumps(news), text=True, check=False, stdout=2
        )
        if ended.returncode:
            self.say(f"{command!r} ended with {ended.returncode}")


def check_webhook(url: str) -> None:
    """Raise ValueError, without the address, where nothing can be posted to it."""
    try:
        parts = urllib.parse.urlsplit(url)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        raise ValueError("no address that could be read") from error
    if parts.scheme not in ("http", "https") or not has_host:
        raise ValueError("expected https://HOST/... or http://HOST/...")
    if parts.username or parts.password:
        raise ValueError("a user and password before the host are not sent")
    if not url.isascii() or any(letter <= " " or letter == "\x7f" for letter in url):
        raise ValueError("it has a space or another character that an address must encode (%20)")


class _Stays(urllib.request.HTTPRedirectHandler):
    """Follows nothing: a POST that is sent on becomes a GET without the news."""

    def redirect_request(self, *args: Any, **options: Any) -> None:
        return None


def _tried(webhook: str, data: bytes) -> tuple[str, bool]:
    """The problem, if there is one, and whether to try again. Waits no longer than TIMEOUT_S for the whole answer."""
    found: list[tuple[str, bool]] = []
    thread = threading.Thread(target=lambda: found.append(_posted(webhook, data)), daemon=True)
    thread.start()
    thread.join(TIMEOUT_S)
    return found[0] if found else (_too_late(), True)


def _too_late() -> str:
    return f"no answer within {TIMEOUT_S:.0f} s"


def _posted(webhook: str, data: bytes) -> tuple[str, bool]:
    headers = {"Content-Type": "application/json", "User-Agent": "promptmill"}
    try:
        with urllib.request.build_opener(_Stays).open(
            urllib.request.Request(webhook, data, headers), timeout=TIMEOUT_S
        ):
            return "", False
    except urllib.error.HTTPError as error:
        leads_on = ", which leads elsewhere: give the address it leads to" if error.code < 400 else ""
        return f"it answered {error.code}{leads_on}", error.code >= 500 or error.code == 429
    except http.client.HTTPException:
        return "what answers there does not speak HTTP", True
    except OSError as error:
        reason = getattr(error, "reason", error)
        return _too_late() if isinstance(reason, TimeoutError) else str(reason), True


def is_failing(status: RunStatus, share: float) -> bool:
    """Whether more than that share of what is settled has failed."""
    settled = status.done + status.failed
    return settled >= min(FEW, status.images) and status.failed > share * settled


def _sentence(news: dict[str, Any]) -> str:
    text = f"{news['run']}: {news['event']}, {news['done']} of {count(news['images'], 'image')}"
    return text + (f", {news['failed']} failed" if news["failed"] else "") + f" ({news['output']})"
