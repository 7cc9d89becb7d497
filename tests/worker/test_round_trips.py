"""How often a batch asks Redis and waits: a clock would not show it here, where Redis is next door."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis

from promptmill.worker.render import Rendered
from tests.worker.test_render import PIXELS, Bench, bench  # noqa: F401 - a fixture


@contextmanager
def round_trips(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What is sent to Redis meanwhile, a packet each; a pipeline is one."""
    sent: list[Any] = []
    send = redis.connection.AbstractConnection.send_packed_command

    def counted(self: Any, command: Any, check_health: bool = True) -> None:
        sent.append(command)
        send(self, command, check_health)

    with monkeypatch.context() as patch:
        patch.setattr(redis.connection.AbstractConnection, "send_packed_command", counted)
        yield sent


@pytest.mark.parametrize("images", [2, 8, 64])
def test_a_batch_is_claimed_in_two_round_trips_and_settled_in_one_per_image(
    bench: Bench,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    images: int,
) -> None:
    first, *others = bench.claims(images)
    bench.finish(first)
    bench.queue.release(others)
    bench.queue.claimable()  # Redis knows all scripts from here on
    with round_trips(monkeypatch) as asked:
        (ready,) = bench.queue.claimable()
        claims = bench.queue.claim(ready.shape, images)
    assert len(claims) == images - 1 and len(asked) == 2
    finisher = bench.finisher()
    with round_trips(monkeypatch) as settled:
        for claim in claims:
            assert finisher.finish(Rendered(claim, PIXELS))
    own = [packet for packet in settled if b"EVALSHA" in b"".join(packet if isinstance(packet, list) else [packet])]
    assert len(own) == len(claims)
    # The others are Celery's events, one per image for those who listen.
    assert len(settled) <= 2 * len(claims)
