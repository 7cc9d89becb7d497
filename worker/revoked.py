"""Which claimed jobs somebody revoked: by Celery's command while this worker ran, or before, as Redis keeps it."""

import time

import redis
from celery.worker import state as celery_state

from promptmill.producer.queue.queue import Claim
from promptmill.producer.queue.revokes import Revokes


class Revoked:
    """`claim in revoked`. Of a job that was entered after a revoke, only a later one counts."""

    def __init__(self, client: redis.Redis) -> None:
        self._revokes = Revokes(client)
        self._kept: dict[str, float] = {}  # job id -> seconds since the epoch, by Redis
        self._seen = 0.0

    def look(self) -> None:
        """Read what was kept since the last look. Raises redis.RedisError."""
        new = self._revokes.since(self._seen)
        self._kept |= new
        self._seen = max(new.values(), default=self._seen)

    def __contains__(self, claim: Claim) -> bool:
        return self._kept.get(claim.job.id, 0.0) > claim.entered_s or _heard_of(claim)


def _heard_of(claim: Claim) -> bool:
    """By Celery's command, which is heard at once but bears no time of Redis."""
    revoked = celery_state.revoked
    if claim.job.id not in revoked or not claim.again:
        return claim.job.id in revoked
    since_s = time.monotonic() - revoked.as_dict().get(claim.job.id, time.monotonic())
    return bool(time.time() - since_s > claim.entered_s)
