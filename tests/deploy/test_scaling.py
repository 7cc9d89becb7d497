"""Claims of docs/scaling.md that one machine can try: queue code in threads on a real Redis, by its own counters."""

import re
from pathlib import Path

import pytest
import redis

from benchmarks.redis_cost import Cost, Costs, counted, enqueued, idle, rendered
from benchmarks.scaling_model import MAXCLIENTS, most_hosts, report, simulate
from promptmill.producer.queue.ledger import Ledger
from tests.deploy.programs import ROOT

COSTS = Costs(*(Cost(20, 2000, 200, 100, 150) for _ in range(5)))


def test_jobs_are_counted_by_redis_itself(client: redis.Redis, redis_url: str, tmp_path: Path) -> None:
    way_in = enqueued(client, tmp_path, 1000)
    assert 1 <= way_in.calls < 4 and 100 < way_in.bytes_in < 300
    way_through = rendered(redis_url, 1000)
    assert Ledger(client).status("measured").done == 1000
    assert 5 < way_through.calls < 30


def test_a_waiting_worker_costs_the_same_whatever_their_number(client: redis.Redis, redis_url: str) -> None:
    one, many = idle(redis_url, 2, workers=1), idle(redis_url, 2, workers=16)
    # A busy machine looks less often than every 0.1 s, never more often; the first look loads the scripts.
    assert many.calls < 1.5 * one.calls + 10
    assert many.calls < 60


def test_the_counters_count_what_happens_between(client: redis.Redis) -> None:
    with counted(client) as found:
        for _ in range(50):
            client.set("x", "y")
    assert found.by_command and found.by_command["set"] == 50
    assert found.cost and found.cost.calls >= 50 and found.cost.bytes_in > 50 * 20


def test_a_farm_gets_what_it_wants_until_redis_is_used_up() -> None:
    few = simulate(16, cost_us=250, rate=10)
    assert few.images_per_s == pytest.approx(160, rel=0.05) and few.devices_wait < 0.01
    assert few.redis_busy == pytest.approx(160 * 250e-6, rel=0.1)
    many = simulate(1000, cost_us=250, rate=10)
    assert many.redis_busy > 0.99 and many.devices_wait > 0.3
    assert many.images_per_s < 1e6 / 250 * 1.05


def test_the_limits_are_arithmetic_on_what_was_measured() -> None:
    limits = most_hosts(COSTS, rate=10)
    assert limits["its thread, hosts that render"] == 1e6 / (10 * 100)
    assert limits["connections (maxclients 10,000)"] == pytest.approx(MAXCLIENTS / 17)
    assert report(COSTS, 10).count("\n| 1,000 |") == 1


def test_the_page_was_written_by_the_scripts() -> None:
    page = (ROOT / "docs" / "scaling.md").read_text()
    assert re.findall(r"<!-- (.+): written by a script -->", page) == ["redis cost", "listing", "scaling model"]
