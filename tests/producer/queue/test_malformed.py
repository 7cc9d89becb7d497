"""What somebody else wrote into our streams, sets and hashes: set aside, counted, told; good jobs go on."""

import base64
import json
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from promptmill.producer.job import Job, Shape
from promptmill.producer.queue.keys import SHAPES, held_key, queue_key, run_key, turns_key
from promptmill.producer.queue.ledger import Ledger
from promptmill.producer.queue.malformed import Malformed
from promptmill.producer.queue.queue import JobQueue
from tests.entries import as_entries

JOBS = [Job(prompt=f"image {n}", seed=n, width=64, height=64) for n in range(3)]
SHAPE = JOBS[0].shape
DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.fixture
def queue(client: redis.Redis) -> JobQueue:
    return entered(client)


def entered(client: redis.Redis) -> JobQueue:
    client.flushall()
    Ledger(client).open("r", output="/out", digest="d", jobs=3, images=3, common={})
    queue = JobQueue(client, "w")
    queue.enqueue("r", 0, 3, as_entries(enumerate(JOBS)))
    return queue


def good(queue: JobQueue) -> list[int]:
    """The indexes that a worker gets, however often it has to ask; as it settles them."""
    found = []
    for _ in range(5):
        for ready in queue.claimable():
            for claim in queue.claim(ready.shape, 10):
                found.append(claim.index)
                queue.done(claim)
    return found


@pytest.mark.parametrize(
    "fields",
    [
        {b"x": b"1"},
        {b"i": b"one", b"job": b"{}"},
        {b"i": b"-1", b"job": b"{}"},
        {b"i": b"99999999999999", b"job": b"{}"},
        {b"job": b"{}", b"i": b"1"},
        {b"\xff": b"\xfe"},
        {b"i": b"\xff\xfe", b"job": b"{}"},
    ],
)
def test_an_entry_that_names_no_job_is_set_aside_with_its_bytes(
    queue: JobQueue, client: redis.Redis, fields: dict[Any, Any]
):
    entry = client.xadd(queue_key("r", SHAPE), fields)
    assert good(queue) == [0, 1, 2]
    assert queue.backlog() == {}
    (kept,) = Malformed(client).last()
    assert Malformed(client).count() == 1 and (kept["run"], kept["entry"]) == ("r", entry)
    bytes_kept = {base64.b64decode(k): base64.b64decode(v) for k, v in kept["fields_base64"].items()}
    assert bytes_kept == fields and kept["reason"]


@pytest.mark.parametrize("job", [b"", b"no json", b"3", b"[]", DEEP, b"\xff\xfe", b'{"prompt": 3}', b'{"width": NaN}'])
def test_a_job_that_cannot_be_read_is_failed_with_the_reason_and_its_neighbours_are_not(
    queue: JobQueue, client: redis.Redis, job: bytes
):
    entries: Any = client.xrange(queue_key("r", SHAPE))
    entry = entries[0][0]
    client.xdel(queue_key("r", SHAPE), entry)
    client.xadd(queue_key("r", SHAPE), {b"i": b"0", b"job": job})
    assert sorted(good(queue)) == [1, 2]
    (failure,) = Ledger(client).failures("r")
    assert failure.index == 0 and "cannot read the job" in failure.reason
    assert Ledger(client).status("r").finished


@pytest.mark.parametrize("shared", [b"", b"no json", b"[1]", DEEP, b"\xff"])
def test_shared_fields_that_cannot_be_read_fail_their_run_alone(queue: JobQueue, client: redis.Redis, shared: bytes):
    Ledger(client).open("other", output="/out", digest="d", jobs=3, images=3, common={})
    queue.enqueue("other", 0, 3, as_entries(enumerate(JOBS)))
    client.hset(run_key("r"), "common", shared)
    assert sorted(good(queue)) == [0, 1, 2]
    assert Ledger(client).status("r").failed == 3
    assert Ledger(client).status("other").done == 3


@pytest.mark.parametrize("member", [b"", b"junk", b"64x64", b"axb:plain:1:m", b"\xff\xfe", b"64x64:plain:x:m"])
def test_a_junk_member_of_the_set_of_shapes_stops_nothing_and_is_swept(
    queue: JobQueue, client: redis.Redis, member: bytes
):
    client.sadd(SHAPES, member)
    assert good(queue) == [0, 1, 2]
    assert client.scard(SHAPES) == 0
    queue.leave()
    assert queue.backlog() == {}


def test_a_shape_that_a_crash_left_behind_is_swept(queue: JobQueue, client: redis.Redis):
    client.sadd(SHAPES, Shape("gone", 64, 64, guided=True).key)
    queue.claimable()
    assert client.smembers(SHAPES) == {SHAPE.key}


@pytest.mark.parametrize("key", [turns_key, held_key])
def test_a_key_of_another_kind_in_the_place_of_a_line_stops_no_other_shape(
    queue: JobQueue, client: redis.Redis, key: Any
):
    other = Shape("other", 64, 64, guided=True)
    client.sadd(SHAPES, other.key)
    client.set(key(other), "junk")
    assert good(queue) == [0, 1, 2]


NAMES = st.binary(min_size=1, max_size=8) | st.sampled_from([b"i", b"job"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    fields=st.dictionaries(
        st.binary(min_size=1, max_size=8) | st.sampled_from([b"i", b"job"]), st.binary(max_size=20), min_size=1
    ),
    member=st.binary(max_size=20),
)
def test_no_bytes_stop_the_queue(client: redis.Redis, fields: dict[Any, Any], member: bytes):
    queue = entered(client)
    client.xadd(queue_key("r", SHAPE), fields)
    client.sadd(SHAPES, member)
    found = set(good(queue))
    told = {failure.index for failure in Ledger(client).failures("r")}
    assert found | told >= {0, 1, 2}
    assert queue.backlog() == {}
    json.dumps(Malformed(client).last())
