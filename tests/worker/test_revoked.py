"""A job that was revoked and is entered anew is meant to be rendered; one that is revoked after that is not."""

import time
from dataclasses import replace

import pytest
import redis
from celery.utils.collections import LimitedSet
from celery.worker import state

from promptmill.producer.job import Job
from promptmill.producer.queue.queue import Claim
from promptmill.producer.queue.revokes import Revokes
from promptmill.worker.revoked import Revoked

JOB = Job(prompt="a red apple", width=64, height=64)
FIRST = Claim("1-0", JOB.shape, "r", 0, 1, JOB, "out")


@pytest.fixture(autouse=True)
def revoked(monkeypatch: pytest.MonkeyPatch) -> LimitedSet:
    monkeypatch.setattr(state, "revoked", LimitedSet())
    return state.revoked


def entered(seconds_from_now: float) -> Claim:
    return replace(FIRST, entry=f"{int((time.time() + seconds_from_now) * 1000)}-0", again=True)


@pytest.fixture
def known(client: redis.Redis) -> Revoked:
    return Revoked(client)


def test_what_nobody_revoked_is_rendered(known: Revoked):
    known.look()
    assert FIRST not in known
    assert entered(0) not in known


def test_the_first_entry_is_revoked_whatever_the_clocks_say(known: Revoked, revoked):
    revoked.add(JOB.id)
    assert replace(FIRST, entry=entered(60).entry) in known


def test_an_entry_anew_is_revoked_only_by_what_came_after_it(known: Revoked, revoked):
    revoked.add(JOB.id)
    assert entered(1) not in known
    assert entered(-1) in known


def test_a_revoke_that_no_worker_heard_is_kept(client: redis.Redis, known: Revoked):
    earlier, later = entered(-5), entered(5)
    known.look()
    Revokes(client).add([JOB.id])
    assert earlier not in known
    known.look()
    assert earlier in known
    assert later not in known, "it was submitted after the revoke"
    Revokes(client).add(["0" * 32])
    known.look()
    assert earlier in known
