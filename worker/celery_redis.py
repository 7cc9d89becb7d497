"""Celery's Redis transport, which one item that is no message does not end.

Anybody may push into a list of Redis. kombu takes an item off the list and then parses it, and what it raises there
ends the worker, each item another one. Here such an item is logged and dropped; the next one is read.
"""

import logging
from collections.abc import Mapping
from queue import Empty
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from promptmill.producer.sentinel import AskingConnection

logger = logging.getLogger(__name__)


class Channel(redis.Channel):
    """A channel that passes over what is no message."""

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except (ValueError, TypeError, KeyError, AttributeError) as error:  # of JSON, and of its lacking fields
            logger.error("dropped an item of Celery's queue that is not a message: %s: %s", type(error).__name__, error)
            raise Empty from error


class SentinelChannel(Channel, redis.SentinelChannel):
    """One to whichever server the sentinels call the primary. A sentinel that does not answer is asked once."""

    connection_class = AskingConnection
    sentinel_kwargs: Mapping[str, Any]  # from the transport options

    def _sentinel_managed_pool(self, asynchronous: bool = False) -> Any:
        self.sentinel_kwargs = {**self.sentinel_kwargs, "retry": Retry(NoBackoff(), 0)}
        return super()._sentinel_managed_pool(asynchronous)


class Transport(redis.Transport):
    """kombu's, with our channel."""

    Channel = Channel


class SentinelTransport(redis.SentinelTransport):
    """kombu's, with our channel."""

    Channel = SentinelChannel


SCHEMES = {"redis": Transport, "rediss": Transport, "sentinel": SentinelTransport}


def use_it() -> None:
    """Have every connection of this process to a Redis use it."""
    for scheme, transport in SCHEMES.items():
        TRANSPORT_ALIASES[scheme] = f"{__name__}:{transport.__name__}"
