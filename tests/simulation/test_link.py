"""Kept connections to the real Redis: whole answers, and nothing left of who had one before."""

import shutil

import pytest

from promptmill.embedded import find_server
from tests.simulation.server import VirtualRedis, virtual_redis

GET = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"
HELLO_3 = b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n"
NOTHING_IN_RESP_2, NOTHING_IN_RESP_3 = b"$-1\r\n", b"_\r\n"


@pytest.fixture
def server():
    if not (find_server() and shutil.which("cc")):
        pytest.skip("no redis-server, or no C compiler, on the PATH")
    with virtual_redis() as server:
        yield server


def test_an_answer_that_takes_many_reads_comes_whole(server: VirtualRedis):
    value = b"v" * 3_000_000
    server.raw.set("k", value)
    assert server.links.take().ask(GET + GET) == 2 * (b"$3000000\r\n" + value + b"\r\n")


def test_a_connection_that_is_taken_again_knows_nothing_of_who_had_it(server: VirtualRedis):
    link = server.links.take()
    link.ask(HELLO_3)
    assert link.ask(GET) == NOTHING_IN_RESP_3
    server.links.give_back(link)
    again = server.links.take()
    assert again is link
    assert again.ask(GET) == NOTHING_IN_RESP_2


def test_a_script_returns_numbers_bytes_nothing_and_lists(server: VirtualRedis):
    script = "return {1, -1, ARGV[1], {}, false, {'a\\r\\n', 2}}"
    assert server.links.take().run(script, "é") == [1, -1, "é".encode(), [], None, [b"a\r\n", 2]]
    with pytest.raises(RuntimeError, match="broken"):
        server.links.take().run("return redis.error_reply('broken')")
