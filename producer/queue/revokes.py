"""Revokes of single jobs, kept for workers that did not run when Celery's command was sent.

promptmill:revoked   sorted set   job id -> when it was revoked, in seconds since the epoch by the clock of Redis
"""

from collections.abc import Iterable
from typing import Any

import redis

from promptmill.producer.queue.keys import REVOKED_JOBS

KEPT_S = 7 * 24 * 3600


class Revokes:
    """Those of one Redis."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis: Any = client

    def add(self, job_ids: Iterable[str]) -> None:
        seconds, microseconds = self._redis.time()
        now = seconds + microseconds / 1e6
        with self._redis.pipeline() as pipe:
            for job_id in job_ids:
                pipe.zadd(REVOKED_JOBS, {job_id: now})
            pipe.zremrangebyscore(REVOKED_JOBS, "-inf", now - KEPT_S)
            pipe.expire(REVOKED_JOBS, KEPT_S)
            pipe.execute()

    def since(self, when: float) -> dict[str, float]:
        """Job ids and times of all that came at `when` or later."""
        return dict(self._redis.zrangebyscore(REVOKED_JOBS, when, "+inf", withscores=True))
