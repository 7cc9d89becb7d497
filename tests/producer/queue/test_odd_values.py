"""What another program, or a hand, left under our keys: a sentence about that run, and all others as ever."""

import json
import time
from typing import Any

import pytest
import redis

from promptmill.producer.errors import LedgerError
from promptmill.producer.queue.keys import (
    MALFORMED,
    MALFORMED_COUNT,
    RUNS,
    WORKERS,
    failed_key,
    failures_key,
    run_key,
)
from promptmill.producer.queue.ledger import Failure, Ledger
from promptmill.producer.queue.malformed import Malformed
from promptmill.producer.queue.workers import Workers

ODD = ["", "x", "-1", "nan", "1e400", "9" * 400, b"\xff\xfe", "{}"]
FIELDS = ["jobs", "images", "done", "failed", "enqueued", "present", "keep_s", "created", "state", "priority"]


@pytest.fixture
def ledger(client: redis.Redis) -> Ledger:
    ledger = Ledger(client)
    for run in ("odd", "good"):
        ledger.open(run, output="/out", digest="d", jobs=3, images=3, common={})
    return ledger


@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize("field", FIELDS)
def test_a_run_that_cannot_be_read_is_told_and_hides_no_other(
    client: redis.Redis, ledger: Ledger, caplog: pytest.LogCaptureFixture, field: str, value: str | bytes
) -> None:
    client.hset(run_key("odd"), field, value)
    if field == "created" and value == "-1":
        assert ledger.status("odd").state == "running"
        return
    with pytest.raises(LedgerError, match="'odd' in this Redis is nothing that promptmill wrote"):
        ledger.status("odd")
    assert [status.run for status in ledger.runs()] == ["good"]
    assert "run 'odd' is passed over" in caplog.text


@pytest.mark.parametrize("field", FIELDS)
def test_a_run_that_lacks_a_field(client: redis.Redis, ledger: Ledger, field: str) -> None:
    client.hdel(run_key("odd"), field)
    assert [status.run for status in ledger.runs()] == ["good"]


def test_a_run_of_another_type(client: redis.Redis, ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    client.set(run_key("odd"), "x")
    assert [status.run for status in ledger.runs()] == ["good"]
    assert "run 'odd' is passed over" in caplog.text


def test_names_that_are_no_utf8(client: redis.Redis, ledger: Ledger) -> None:
    client.zadd(RUNS, {b"\xff": 1e12})
    client.hset(run_key("odd"), "output", b"\xff")
    assert [status.output for status in ledger.runs() if status.run == "odd"] == ["\\xff"]


def test_reasons_that_cannot_be_read(client: redis.Redis, ledger: Ledger) -> None:
    kept: dict[Any, Any] = {
        "0": '{"id":"a","reason":"r"}',
        "1": "junk",
        "2": '{"id":"a","reason":"\\ud800"}',
    }
    strange: dict[Any, Any] = {
        "x": "{}",
        "-1": kept["0"],
        "3": kept["0"],
        "9" * 30: kept["0"],
        b"\xff": b"\xff",
    }
    client.hset(failures_key("odd"), mapping=kept | strange)
    found = {failure.index: failure for failure in ledger.failures("odd")}
    assert found == {
        0: Failure(0, "a", "r"),
        1: Failure(1, "", "the reason that is kept cannot be read"),
        2: Failure(2, "a", "\\ud800"),
    }


def test_bits_that_the_run_has_no_jobs_for(client: redis.Redis, ledger: Ledger) -> None:
    for bit in (1, 3, 7, 1 << 20):
        client.setbit(failed_key("odd"), bit, 1)
    assert ledger.failed_indexes("odd") == [1]


@pytest.mark.parametrize(
    "said",
    [
        {"state": []},
        {"devices": "x"},
        {"images": -5},
        {"images_per_s": float("nan")},
        {"problems": 3},
        {"shape": 5},
        {"at": "now"},
        {"name": "\ud800"},
    ],
)
def test_a_report_of_no_worker_is_passed_over(client: redis.Redis, said: dict[str, object]) -> None:
    for name, more in (("odd", said), ("good", {})):
        client.hset(WORKERS, name, json.dumps({"name": name, "state": "ready", "at": time.time(), **more}))
    client.hset(WORKERS, b"\xff", b"\xff")
    assert [report.name for report in Workers(client).alive()] == ["good"]


def test_entries_set_aside_by_nobody(client: redis.Redis) -> None:
    client.lpush(MALFORMED, "{}", "[]", b"\xff", '{"run":"r","reason":"why"}')
    client.set(MALFORMED_COUNT, "x")
    assert Malformed(client).count() == 0
    assert [one["reason"] for one in Malformed(client).last()] == ["why"]
