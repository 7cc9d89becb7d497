"""A job that was revoked and is entered anew is meant to be rendered; one that is revoked after that is not."""

import time
from dataclasses import replace

import pytest
from celery.utils.collections import LimitedSet
from celery.worker import state

from promptmill.producer.job import Job
from promptmill.producer.queue.queue import Claim
from promptmill.worker.host import Host

JOB = Job(prompt="a red apple", width=64, height=64)
FIRST = Claim("1-0", JOB.shape, "r", 0, 1, JOB, "out")


@pytest.fixture(autouse=True)
def revoked(monkeypatch: pytest.MonkeyPatch) -> LimitedSet:
    monkeypatch.setattr(state, "revoked", LimitedSet())
    return state.revoked


def entered(seconds_from_now: float) -> Claim:
    return replace(FIRST, entry=f"{int((time.time() + seconds_from_now) * 1000)}-0", again=True)


def test_what_nobody_revoked_is_rendered():
    assert not Host.is_revoked(FIRST)
    assert not Host.is_revoked(entered(0))


def test_the_first_entry_is_revoked_whatever_the_clocks_say(revoked):
    revoked.add(JOB.id)
    assert Host.is_revoked(replace(FIRST, entry=entered(60).entry))


def test_an_entry_anew_is_revoked_only_by_what_came_after_it(revoked):
    revoked.add(JOB.id)
    assert not Host.is_revoked(entered(1))
    assert Host.is_revoked(entered(-1))
