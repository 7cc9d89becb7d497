"""Marks of who is at a shape's program, and the deaths that they tell of. On a real Redis."""

import threading
from types import SimpleNamespace
from typing import Any

import redis

from promptmill.producer.broker import connect
from promptmill.producer.job import Shape
from promptmill.producer.queue.compiling import MAX_DEATHS, Compiling
from promptmill.producer.queue.keys import compiling_key
from promptmill.worker.compiler import Compiler
from tests.farm import wait_until
from tests.mortal_redis import MortalRedis

SHAPE = Shape("model", 64, 64, True)
LEASE_S = 0.05


def as_worker(client: redis.Redis, name: str, lease_s: float = 60.0) -> Compiling:
    return Compiling(client, name, lease_s=lease_s)


def test_an_attempt_that_ends_is_no_death(client: redis.Redis):
    one, two = as_worker(client, "one/1"), as_worker(client, "two/1")
    assert one.begin(SHAPE).begun
    attempt = two.begin(SHAPE)
    assert (attempt.begun, attempt.deaths, attempt.others) == (True, 0, 1), "two may be at it"
    one.ended(SHAPE)
    two.succeeded(SHAPE)
    assert client.keys("promptmill:compiling:*") == []
    assert one.deaths([SHAPE]) == {SHAPE: 0}


def test_a_mark_that_is_not_renewed_is_a_death(client: redis.Redis):
    as_worker(client, "one/1").begin(SHAPE)
    two = as_worker(client, "two/1", LEASE_S)
    wait_until(lambda: two.deaths([SHAPE]) == {SHAPE: 1}, "the lease is over")
    as_worker(client, "one/1").renew(SHAPE)
    assert as_worker(client, "two/1").deaths([SHAPE]) == {SHAPE: 0}
    two.renew(SHAPE)
    assert as_worker(client, "two/2").deaths([SHAPE]) == {SHAPE: 0}, "only a mark that is there is renewed"


def test_a_redis_that_was_away_for_longer_than_the_lease_has_killed_nobody(mortal_redis: MortalRedis):
    client = connect(mortal_redis.url)
    one, two = as_worker(client, "one/1", 1.0), as_worker(client, "two/1", 2.0)
    one.begin(SHAPE)
    client.hset(compiling_key(SHAPE), "one/1", 1)  # it was seen long ago
    wait_until(lambda: two.deaths([SHAPE]) == {SHAPE: 1}, "this Redis is up for longer than a lease")
    two.was_away()
    assert two.deaths([SHAPE]) == {SHAPE: 0}, "this worker did not reach it"
    mortal_redis.kill()
    mortal_redis.start()
    assert as_worker(client, "three/1").deaths([SHAPE]) == {SHAPE: 0}, "it was started anew"


def test_a_worker_tells_how_compiling_ended_when_redis_is_back(mortal_redis: MortalRedis):
    client = connect(mortal_redis.url)
    one = as_worker(client, "one/1")
    one.begin(SHAPE)
    host: Any = SimpleNamespace(give_up=threading.Event())
    mortal_redis.kill()
    telling = threading.Thread(target=Compiler(host)._tell, args=(one.ended, SHAPE))
    telling.start()
    mortal_redis.start()
    telling.join(60)
    assert not client.exists(compiling_key(SHAPE))


def test_a_successor_of_the_same_name_need_not_wait(client: redis.Redis):
    for death in range(MAX_DEATHS):
        attempt = as_worker(client, f"promptmill@host/{death}").begin(SHAPE)
        assert (attempt.begun, attempt.deaths) == (True, death)
    attempt = as_worker(client, "promptmill@host/x").begin(SHAPE)
    assert attempt.is_hopeless
    assert not attempt.begun


def test_of_what_has_killed_one_worker_at_a_time_tries_again(client: redis.Redis):
    as_worker(client, "one/1").begin(SHAPE)
    assert as_worker(client, "one/2").begin(SHAPE).begun
    attempt = as_worker(client, "two/1").begin(SHAPE)
    assert (attempt.begun, attempt.deaths, attempt.others) == (False, 1, 1)


def test_success_forgives_all_deaths_and_giving_up_does_after_a_while(client: redis.Redis):
    for death in range(MAX_DEATHS):
        as_worker(client, f"w/{death}").begin(SHAPE)
    last = as_worker(client, "w/x")
    last.given_up(SHAPE)
    assert last.begin(SHAPE).is_hopeless, "until the jobs that are there are failed"
    assert 0 < client.ttl(f"promptmill:compiling:{SHAPE.key}") <= 60
    last.succeeded(SHAPE)
    assert not last.begin(SHAPE).is_hopeless


def test_how_long_nobody_could_make_a_shape_counts_from_the_first_who_said_so(client: redis.Redis):
    one, two = as_worker(client, "one/1"), as_worker(client, "two/1")
    assert one.refused(SHAPE) == 0
    wait_until(lambda: two.refused(SHAPE) > 0.1, "time passes")
    assert 0 < client.ttl(f"promptmill:unmade:{SHAPE.key}") <= 600
    one.succeeded(SHAPE)
    assert two.refused(SHAPE) == 0, "somebody could"


def test_marks_of_the_dead_stay_for_an_hour_after_the_last_sign_of_anybody(client: redis.Redis):
    one = as_worker(client, "one/1")
    one.begin(SHAPE)
    key = compiling_key(SHAPE)
    assert 3500 < client.ttl(key) <= 3600
    client.expire(key, 5)
    one.renew(SHAPE)
    assert 3500 < client.ttl(key) <= 3600, "it compiles for hours, and is there"
    client.expire(key, 5)
    as_worker(client, "two/1").renew(SHAPE)
    assert client.ttl(key) <= 5
