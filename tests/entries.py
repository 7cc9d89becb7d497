"""Jobs as the queue takes them."""

from collections.abc import Iterable, Mapping
from typing import Any

import redis

from promptmill.producer.job import Job, canonical_json
from promptmill.producer.queue.queue import Entry


def shared_fields(jobs: Iterable[Job]) -> dict[str, Any]:
    """The fields that all jobs have with one value."""
    first, *others = [job.fields() for job in jobs]
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}


def as_entries(indexes: Iterable[tuple[int, Job]], common: Mapping[str, Any] | None = None) -> list[Entry]:
    """The jobs at these indexes, without what their run shares."""
    shared = common or {}

    def own(job: Job) -> str:
        return canonical_json({name: value for name, value in job.fields().items() if name not in shared})

    return [(index, job.shape.key, own(job)) for index, job in indexes]


def indexes_in(client: redis.Redis, stream: str) -> list[int]:
    """The indexes in their run of the jobs in a stream, in its order."""
    return [int((fields or {})["i"]) for _, fields in client.xrange(stream) or ()]
