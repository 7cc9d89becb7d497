"""`promptmill wait --webhook --exec --failure-rate`: news of a run, by a real server and a real shell."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import redis

from promptmill import notices
from promptmill.producer.queue.control import cancel
from promptmill.producer.queue.queue import JobQueue
from tests.promptmill.conftest import Command


class Hook(HTTPServer):
    """Keeps what is posted, after it has refused as often as it was told to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.posted: list[dict[str, Any]] = []
        self.answers: list[int] = []
        self.got: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/secret"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        hook: Any = self.server
        hook.posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(hook.answers.pop(0) if hook.answers else 200)
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    def do_GET(self) -> None:
        self.server.got.append(self.path)  # type: ignore[attr-defined]
        self.send_response(200)
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


def test_what_a_command_prints_is_not_among_our_data(client, run, promptmill: Command):
    cancel(client, "r")
    ran = promptmill("wait", "r", "--json", "--exec", "echo from the command")
    assert json.loads(ran.out)["state"] == "cancelled" and "from the command\n" in ran.err


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


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_hook_that_leads_elsewhere_has_not_taken_the_news(client, run, promptmill: Command, hook: Hook, code: int):
    settle(client, done=40)
    hook.answers = [code]
    answer = promptmill("wait", "r", "--webhook", hook.url)
    assert answer.code == 0 and f"was not reached: it answered {code}, which leads elsewhere" in answer.err
    assert (len(hook.posted), hook.got) == (1, [])


ADDRESSES = ["hooks.slack.com/secret", "file:///secret", "http://[bad/secret", "http://host:port/secret", "https://"]
ADDRESSES += ["http://host/a secret", "http://me:secret@host/", "http://host/secr\u00e9t"]


@pytest.mark.parametrize("url", ADDRESSES)
def test_an_address_that_is_none_is_refused_before_the_run_is_over(promptmill: Command, url: str):
    answer = promptmill("wait", "r", "--webhook", url)
    assert answer.code == 2 and "--webhook" in answer.err and "Traceback" not in answer.err
    assert "secr" not in answer.err


TALKS = {
    "no word": (b"", "no answer within"),
    "a byte at a time": (b"x", "no answer within"),
    "not HTTP": (b"220 mail.example ESMTP\r\n" * 2, "does not speak HTTP"),
}


@pytest.mark.parametrize("talk", TALKS)
def test_a_hook_that_hangs_or_babbles_holds_nobody_up(client, run, promptmill: Command, monkeypatch, talk: str):
    settle(client, done=40)
    monkeypatch.setattr(notices, "TIMEOUT_S", 0.5)
    monkeypatch.setattr(notices, "TRIES", 2)
    says, told = TALKS[talk]
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=babble, args=(server, says, over), daemon=True).start()
        began = time.monotonic()
        answer = promptmill("wait", "r", "--webhook", f"http://127.0.0.1:{server.getsockname()[1]}/secret")
        took_s = time.monotonic() - began
        over.set()
    assert answer.code == 0 and told in answer.err and took_s < 10


def babble(server: socket.socket, says: bytes, over: threading.Event) -> None:
    """Answers all who come, bit by bit and without an end; more than a line ends the talk."""
    connected = []
    with contextlib.suppress(OSError):
        while True:
            one, _ = server.accept()
            connected.append(one)
            one.sendall(says)
            if len(says) > 1:
                one.shutdown(socket.SHUT_WR)
            else:
                threading.Thread(target=drip, args=(one, says, over), daemon=True).start()


def drip(one: socket.socket, says: bytes, over: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while not over.wait(0.1):
            one.sendall(says)


def test_a_command_that_fails_is_a_warning(client, run, promptmill: Command):
    settle(client, done=40)
    answer = promptmill("wait", "r", "--exec", "exit 3")
    assert answer.code == 0 and "'exit 3' ended with 3" in answer.err
