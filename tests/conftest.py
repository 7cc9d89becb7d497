"""What every test may ask for: a real Redis, a real GCS server, and JAX as on a host with eight devices."""

import os
from collections.abc import Iterator

# Before anything imports JAX: eight virtual devices, and shapes that must match without silent broadcasting.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")

import pytest
import redis

from producer.broker import connect, embedded_server, find_server
from producer.errors import BrokerError


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The URL of a real Redis of this session's own. Without a server: skipped on a laptop, an error in CI."""
    try:
        find_server()
    except BrokerError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
    with embedded_server() as url:
        yield url


@pytest.fixture
def client(redis_url: str) -> redis.Redis:
    """A client of the real Redis, emptied."""
    client = connect(redis_url)
    client.flushall()
    return client
