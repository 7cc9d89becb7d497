"""What every test may ask for: a real Redis, a real GCS server, and JAX as on a host with eight devices."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Before anything imports JAX: eight virtual devices, and shapes that must match without silent broadcasting.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
# Models of this session's own; compiled programs are kept for the next session, which is most of the time it takes.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="promptmill-tests-")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "xla"))

import pytest
import redis

from promptmill.embedded import check_server, embedded_server
from promptmill.producer.broker import connect
from promptmill.producer.errors import BrokerError
from tests.fake_gcs import fake_gcs
from tests.mortal_redis import mortal_redis
from tests.typecheck import check_arrays

__all__ = ["fake_gcs", "mortal_redis"]

check_arrays("promptmill.worker")

LONG = ("simulation", "soak")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What takes many minutes runs only where its marker is asked for by name: pytest -m simulation, pytest -m soak."""
    asked = config.getoption("markexpr")
    left_out = [one for one in items if any(one.get_closest_marker(name) and name not in asked for name in LONG)]
    items[:] = [one for one in items if one not in left_out]
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session", autouse=True)
def _no_cache_left_behind() -> Iterator[None]:
    yield
    shutil.rmtree(os.environ["XDG_CACHE_HOME"], ignore_errors=True)


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The URL of a real Redis of this session's own. Without a server: skipped on a laptop, an error in CI."""
    try:
        check_server()
    except BrokerError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
    with embedded_server() as embedded:
        yield embedded.url


@pytest.fixture
def client(redis_url: str) -> redis.Redis:
    """A client of the real Redis, emptied."""
    client = connect(redis_url)
    client.flushall()
    return client


@pytest.fixture(autouse=True)
def _outside_a_worker() -> None:
    """A test that made a Celery worker in this process left it as one, in which no answer may be waited for."""
    if state := sys.modules.get("celery._state"):
        state._set_task_join_will_block(False)
