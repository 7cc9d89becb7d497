"""`promptmill wait --webhook --exec --failure-rate`: news of a run, by a real server and a real shell."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import redis

from promptmill.producer.queue.control import cancel
from promptmill.producer.queue.queue import JobQueue
from tests.promptmill.conftest import Command


class Hook(HTTPServer):
    """Keeps what is posted, after it has refused as often as it was told to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.posted: list[dict[str, Any]] = []
        self.answers: list[int] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/secret"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        hook: Any = self.server
        hook.posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(hook.answers.pop(0) if hook.answers else 200)
        self.end_headers()

    def log_message(self, *args: Any) -> None: ...


@pytest.fixture
def hook() -> Iterator[Hook]:
    server = Hook()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def run(at_redis: str, promptmill: Command, here: Path) -> str:
    """Forty jobs in Redis, for nobody yet."""
    (here / "many.txt").write_text("".join(f"cat {n}\n" for n in range(40)))
    assert promptmill("submit", "many.txt", "--output", "out", "--run", "r", "--model", "tiny-random").code == 0
    return "r"


def settle(client: redis.Redis, *, done: int = 0, failed: int = 0) -> None:
    queue = JobQueue(client, "somebody")
    (shape,) = queue.backlog()
    for number, claim in enumerate(queue.claim(shape, done + failed)):
        assert queue.done(claim) if number < done else queue.failed(claim, "no")


def test_the_end_is_posted_with_counts_and_a_sentence(client, run, promptmill: Command, hook: Hook, here: Path):
    settle(client, done=39, failed=1)
    assert promptmill("wait", "r", "--webhook", hook.url).code == 1
    (news,) = hook.posted
    assert (news["event"], news["run"], news["done"], news["failed"]) == ("finished", "r", 39, 1)
    assert news["text"] == news["content"] == f"r: finished, 39 of 40 images, 1 failed ({here}/out/r)"


def test_a_cancelled_run_is_told_to_a_command(client, run, promptmill: Command, here: Path):
    cancel(client, "r")
    command = 'echo "$NOTICE_EVENT $NOTICE_RUN $NOTICE_CANCELLED" > told; cat > news'
    assert promptmill("wait", "r", "--exec", command).code == 0
    assert (here / "told").read_text() == "cancelled r 40\n"
    assert json.loads((here / "news").read_text())["images"] == 40


def test_failing_is_told_once_and_before_the_end(client, run, promptmill: Command, hook: Hook):
    settle(client, done=15, failed=5)
    rest = threading.Timer(2.0, lambda: settle(client, done=20))
    rest.start()
    assert promptmill("wait", "r", "--webhook", hook.url, "--failure-rate", "0.2").code == 1
    rest.join()
    assert [news["event"] for news in hook.posted] == ["failing", "finished"]


def test_a_hook_that_stumbles_is_tried_again_and_its_secret_is_not_shown(client, run, promptmill: Command, hook: Hook):
    settle(client, done=40)
    hook.answers = [503, 200]
    answer = promptmill("wait", "r", "--webhook", hook.url)
    assert (answer.code, len(hook.posted)) == (0, 2)
    hook.answers = [404]
    answer = promptmill("wait", "r", "--webhook", hook.url)
    assert answer.code == 0 and "the webhook at 127.0.0.1 was not reached: it answered 404" in answer.err
    assert "secret" not in answer.err


def test_a_command_that_fails_is_a_warning(client, run, promptmill: Command):
    settle(client, done=40)
    answer = promptmill("wait", "r", "--exec", "exit 3")
    assert answer.code == 0 and "'exit 3' ended with 3" in answer.err
