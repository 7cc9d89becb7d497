"""Where Redis is: the one we are told of, or one of our own that leaves nothing behind."""

import signal
import socket
import time
from contextlib import ExitStack

import pytest
import redis

from promptmill.producer.broker import (
    celery_settings,
    client_of,
    connect,
)
from promptmill.producer.broker_url import without_password
from promptmill.producer.errors import BrokerError
from tests.mortal_redis import MortalRedis

SECRET = "geheim"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        (f"redis://:{SECRET}@host:6379/0", "redis://:***@host:6379/0"),
        (f"rediss://me:{SECRET}@host/1", "rediss://me:***@host/1"),
        (f"redis://:a@{SECRET}@host", "redis://:***@host"),
        (f"redis://:{SECRET}/x@host", "redis://:***@host"),
        (f"unix://me:{SECRET}@/run/redis.sock?db=1", "unix://me:***@/run/redis.sock?db=1"),
        (f"redis://host/0?db=1&password={SECRET}&x=1", "redis://host/0?db=1&password=***&x=***"),
        ("nonsense", "nonsense"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str):
    assert without_password(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:1/0",
        f"redis://:{SECRET}@127.0.0.1:1/0",
        f"redis://127.0.0.1:1/0?password={SECRET}",
        f"redis://:{SECRET}@{'x' * 80}/0",
        f"redis://:{SECRET}@127.0.0.1/0?no_such_option=1",
        f"unix://:{SECRET}@/no/such/socket",
    ],
)
def test_no_redis_is_a_sentence_without_the_password(url: str):
    started = time.monotonic()
    with pytest.raises(BrokerError) as caught:
        connect(url)
    told = str(caught.value)
    assert told.startswith(f"no Redis at {without_password(url)}: ")
    assert "--broker or PROMPTMILL_BROKER" in told
    assert SECRET not in told
    assert "\n" not in told
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "url", ["", "localhost:6379", "http://host", "redis://host:port", f"redis://:{SECRET}/{SECRET}@host:6379/0"]
)
def test_what_is_no_url_is_told_without_the_password(url: str):
    with pytest.raises(BrokerError) as caught:
        client_of(url)
    assert str(caught.value).startswith(f"broker {without_password(url)!r}: ")
    assert SECRET not in str(caught.value)


def test_a_client_reads_text(client: redis.Redis):
    client.set("key", "苹果")
    assert client.get("key") == "苹果"


def test_celery_knows_every_setting_it_is_given():
    from celery.app.defaults import NAMESPACES, flatten

    given = celery_settings("redis://host/1")
    assert given["broker_url"] == "redis://host/1"
    assert set(given) <= {name.lower() for name, _ in flatten(NAMESPACES)}


def fill_the_queue(address: tuple[str, int], sockets: ExitStack) -> None:
    """Connect to what accepts nobody until it answers no more."""
    with pytest.raises(TimeoutError):
        while True:
            caller = sockets.enter_context(socket.socket())
            caller.settimeout(0.2)
            caller.connect(address)


def test_where_connecting_hangs_it_is_tried_four_times_and_not_four_times_four(
    mortal_redis: MortalRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries, connect_once = [], redis.Connection._connect

    def counted(self: redis.Connection) -> socket.socket:
        tries.append(1)
        return connect_once(self)

    client = client_of(mortal_redis.url, timeout_s=0.2)
    client.ping()
    where = client.get_connection_kwargs()
    mortal_redis.signal(signal.SIGSTOP)
    monkeypatch.setattr(redis.Connection, "_connect", counted)
    with ExitStack() as sockets, pytest.raises(redis.TimeoutError):
        fill_the_queue((where["host"], where["port"]), sockets)
        client.get("any")
    assert 1 <= len(tries) <= 4


def test_a_redis_that_is_stopped_is_told(mortal_redis: MortalRedis):
    mortal_redis.signal(signal.SIGSTOP)
    with pytest.raises(BrokerError, match=r"[Tt]imeout"):
        connect(mortal_redis.url, timeout_s=0.2)
