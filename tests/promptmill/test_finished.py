"""Bits of a bitmap, and the rate of a run: arithmetic."""

import redis
from hypothesis import given
from hypothesis import strategies as st

from promptmill.finished import either, new_bits

indexes = st.sets(st.integers(0, 200))


def bitmap(of: set[int]) -> bytes:
    bits = bytearray(max(of, default=-1) // 8 + 1)
    for index in of:
        bits[index // 8] |= 0x80 >> (index % 8)
    return bytes(bits)


@given(indexes, indexes)
def test_the_new_bits_are_those_that_were_not_set_before(before: set[int], now: set[int]):
    assert list(new_bits(bitmap(before), bitmap(now))) == sorted(now - before)


@given(indexes, indexes)
def test_what_was_told_is_the_union(one: set[int], other: set[int]):
    assert list(new_bits(b"", either(bitmap(one), bitmap(other)))) == sorted(one | other)


def test_bits_are_counted_as_redis_counts_them(client: redis.Redis, redis_url: str):
    for index in (0, 9, 70):
        client.setbit("bits", index, 1)
    with redis.Redis.from_url(redis_url) as plain:
        assert list(new_bits(b"", plain.get("bits"))) == [0, 9, 70]
