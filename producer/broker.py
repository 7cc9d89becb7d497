"""Where Redis is: its URL, a client of it, and the Celery app's settings for it."""

import threading
from collections.abc import Callable
from typing import Any

import redis
from redis.backoff import FullJitterBackoff, NoBackoff
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError

from promptmill.producer.broker_url import (
    celery_options,
    celery_url,
    check_url,
    is_sentinel,
    sentinel_url,
    without_password,
)
from promptmill.producer.errors import BrokerError

DEFAULT_URL = "redis://localhost:6379/0"

CONNECT_TIMEOUT_S = 5.0
SOCKET_TIMEOUT_S = 30.0  # longer than any call here takes; a dead peer is noticed all the same

CELERY_TIMEOUTS = {"socket_connect_timeout": CONNECT_TIMEOUT_S, "socket_timeout": 10.0}
"""kombu has none of its own: an event for a Redis whose host is gone would hold a worker until TCP gives up."""

CELERY_QUEUE = "promptmill"
"""Where Celery's own messages wait: tasks of other clients, pieces of packing. Jobs are in streams (queue/keys.py)."""


def connect(url: str, *, timeout_s: float = SOCKET_TIMEOUT_S) -> redis.Redis:
    """A client of the Redis at `url`, checked by a ping. Raises BrokerError with a sentence."""
    client = client_of(url, timeout_s=timeout_s)
    try:
        client.ping()
    except redis.AuthenticationError as error:
        raise BrokerError(
            f"Redis at {without_password(url)} needs a password, or another one: "
            f"{url.partition('://')[0]}://:password@host:port..."
        ) from error
    except MasterNotFoundError as error:
        raise BrokerError(f"no Redis at {without_password(url)}: {error}") from error
    except (redis.RedisError, ValueError, TypeError) as error:  # the latter two: no such host name, no such option
        raise BrokerError(
            f"no Redis at {without_password(url)}: {str(error).rstrip('.')}. Start one (redis-server, or "
            "docker compose up redis), or say where it is with --broker or PROMPTMILL_BROKER"
        ) from error
    return client


def client_of(url: str, *, timeout_s: float = SOCKET_TIMEOUT_S) -> redis.Redis:
    """A client of the Redis at `url`, not yet connected, that waits `timeout_s` for an answer.

    Raises BrokerError for a URL that is none.
    """
    check_url(url)
    options: dict[str, Any] = {
        "decode_responses": True,
        "encoding_errors": "backslashreplace",  # others may write what is no UTF-8
        "socket_connect_timeout": min(CONNECT_TIMEOUT_S, timeout_s),
        "socket_timeout": timeout_s,
        "health_check_interval": 15,
        "retry": OneRetry(FullJitterBackoff(cap=1.0, base=0.05), retries=3),
    }
    if is_sentinel(url):
        return sentinel_url(url).client(**options)
    try:
        return redis.Redis.from_url(url, **options)
    except ValueError as error:  # an option's value; not with the error's own text, which may quote a password
        raise BrokerError(f"broker {without_password(url)!r}: one of its options has a wrong value") from error


class OneRetry(Retry):
    """redis-py's, which tries a command again and, in each try, the connecting as often: 16 timeouts for 4 tries."""

    def call_with_retry(self, do: Callable[[], Any], *args: Any, **options: Any) -> Any:
        if getattr(_trying, "now", False):
            return _ONCE.call_with_retry(do, *args, **options)
        _trying.now = True
        try:
            return super().call_with_retry(do, *args, **options)
        finally:
            _trying.now = False


_ONCE = Retry(NoBackoff(), 0)  # which still tells redis-py of the failure: it closes the connection then
_trying = threading.local()
"""State: whether this thread is in a try."""


def eviction(client: redis.Redis) -> str | None:
    """A warning, where the Redis drops keys when its memory is full; None where it keeps them, or does not say."""
    try:
        memory: Any = client.info("memory")
    except redis.RedisError:
        return None
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy == "noeviction" or not memory.get("maxmemory"):
        return None
    return (
        f"this Redis drops keys when its memory is full (maxmemory-policy {policy}): jobs would be lost. "
        "Set maxmemory-policy noeviction"
    )


def celery_settings(url: str) -> dict[str, Any]:
    """What the Celery app is configured with: jobs travel in our own streams, Celery's queue carries the rest."""
    return {
        "broker_url": celery_url(url),
        "broker_transport_options": {**celery_options(url), **CELERY_TIMEOUTS},
        "result_backend_transport_options": celery_options(url),
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,  # Redis comes back; so do we
        "broker_channel_error_retry": True,  # also where it answers and takes no writes: a full disk, a failover
        "worker_prefetch_multiplier": 1,  # facts of kombu: several prefetched messages do not survive a restart
        "worker_send_task_events": True,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_enable_remote_control": True,
        "task_acks_late": True,
        "task_default_queue": CELERY_QUEUE,
        "accept_content": ["json"],  # a pickled message is refused: it could run anything
        "task_serializer": "json",
        "event_serializer": "json",
        "task_ignore_result": True,
        "worker_hijack_root_logger": True,
        "worker_redirect_stdouts": False,
        "worker_log_format": "%(asctime)s %(levelname)s %(message)s",
    }
