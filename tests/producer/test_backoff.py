"""Pauses grow, stay bounded, and are not those of the other hosts."""

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptmill.producer.backoff import backoff


@given(st.floats(0.01, 10), st.floats(1, 1000), st.integers(1, 12))
def test_no_pause_is_nothing_or_over_its_bound(first_s: float, times: float, count: int) -> None:
    most_s = first_s * times
    for tries, pause_s in enumerate(islice(backoff(first_s=first_s, most_s=most_s), count)):
        assert first_s / 2 <= pause_s <= min(first_s * 2**tries, most_s)


def test_a_thousand_hosts_that_lost_redis_together_come_back_apart() -> None:
    hosts = [backoff(first_s=0.2, most_s=15.0) for _ in range(1000)]
    for bound_s in (0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 15.0, 15.0):
        pauses = sorted(next(host) for host in hosts)
        assert sum(pauses) / 1000 == pytest.approx((0.1 + bound_s) / 2, rel=0.1)
        crowd = max(sum(pause < other < pause + bound_s / 10 for other in pauses) for pause in pauses[::50])
        assert crowd < 300, "more than in one place of ten"
