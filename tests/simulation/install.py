"""Puts simulated time, threads and networks under the code that ships. Once in a Python process, and for good."""

import random
import secrets
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import google.cloud.storage._bucket_metadata_cache as bucket_metadata
import redis.connection
import redis.retry
import redis.utils
import requests.utils

import promptmill.producer.outputs.gcs
import promptmill.producer.plan_files
import promptmill.producer.presence
import promptmill.producer.submit
import promptmill.worker.compiler
import promptmill.worker.encode
import promptmill.worker.giving_up
import promptmill.worker.host
import promptmill.worker.in_flight
import promptmill.worker.keep
import promptmill.worker.output_trouble
import promptmill.worker.pull
import promptmill.worker.render
import promptmill.worker.self_report
from tests.simulation import parts, threads
from tests.simulation.bucket import Network
from tests.simulation.threads import in_a_task, scheduler
from tests.simulation.wire import connecting

THREADED = (
    promptmill.producer.outputs.gcs,
    promptmill.worker.compiler,
    promptmill.worker.giving_up,
    promptmill.worker.host,
    promptmill.worker.in_flight,
    promptmill.worker.output_trouble,
    promptmill.worker.pull,
    promptmill.worker.render,
    promptmill.worker.self_report,
)
"""Modules that make threads, locks or queues of threads."""

IDLE_S = 1.0
"""Between two looks of a worker that has nothing to do: ten times what ships, as most of a story is waiting."""


class Executor:
    """A ThreadPoolExecutor whose thread is the caller's own."""

    def __init__(self, *args: Any) -> None: ...

    def __enter__(self) -> "Executor":
        return self

    def __exit__(self, *args: object) -> None: ...

    def submit(self, call: Any, *args: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        try:
            future.set_result(call(*args))
        except Exception as error:  # noqa: BLE001 - as an executor does
            future.set_exception(error)
        return future

    def map(self, call: Any, *many: Any) -> Any:
        return map(call, *many)


def _clock(start_s: float, real: Callable[[], float]) -> Callable[[], float]:
    def clock() -> float:
        running = threads.Scheduler.now_running
        return real() if running is None or running.current is None else start_s + running.now

    return clock


def _virtual_time() -> None:
    real_sleep = time.sleep
    time.monotonic = _clock(1000.0, time.monotonic)
    time.time = _clock(1_800_000_000.0, time.time)
    time.sleep = lambda seconds: scheduler().pause(float(seconds)) if in_a_task() else real_sleep(seconds)
    redis.retry.sleep = time.sleep  # type: ignore[attr-defined]


def install(world_of: Any) -> Network:
    """Returns the network before the bucket, to be given its world; `world_of()` is the world of the wire to Redis."""
    _virtual_time()
    threading = SimpleNamespace(
        Thread=threads.Thread, Lock=threads.Lock, Condition=threads.Condition, Event=threads.Event
    )
    for module in THREADED:
        if hasattr(module, "threading"):
            setattr(module, "threading", threading)  # noqa: B010
        if hasattr(module, "queue"):
            setattr(module, "queue", SimpleNamespace(SimpleQueue=threads.SimpleQueue))  # noqa: B010
    for module in (promptmill.producer.submit, promptmill.producer.presence, promptmill.producer.plan_files):
        module.ThreadPoolExecutor = Executor  # type: ignore[attr-defined]
    socket: Any = redis.connection.UnixDomainSocketConnection
    socket.host = socket.port = ""  # redis-py asks for them where connecting takes too long, which no such socket does
    socket._connect = connecting(socket._connect, world_of)
    secrets.token_hex = lambda nbytes=None: f"{random.getrandbits(32):08x}"
    _versions_at_hand()
    _unmeasured()
    promptmill.worker.render.fetch = parts.fetch  # type: ignore[attr-defined]
    promptmill.worker.pull.IDLE_S = IDLE_S
    return _bucket_network()


def _versions_at_hand() -> None:
    """Of distributions: redis-py looks its own up for each connection, which took a tenth of a story."""
    ours, theirs = promptmill.worker.encode.version("promptmill"), redis.utils.get_lib_version()  # type: ignore[attr-defined]
    for module in (promptmill.worker.encode, promptmill.producer.plan_files):
        module.version = lambda distribution_name: ours  # type: ignore[attr-defined]
    redis.utils.get_lib_version = lambda: theirs


def _unmeasured() -> None:
    """redis-py counts for OpenTelemetry, and warns of outdated arguments, at each request; nobody listens here."""
    for module in (redis.connection, redis.client):
        for name in vars(module).keys() & {"record_connection_count", "record_operation_duration", "get_pool_name"}:
            setattr(module, name, lambda *args, **more: None)
    pool: Any = redis.connection.ConnectionPool
    pool.get_connection = pool.get_connection.__wrapped__


def _bucket_network() -> Network:
    bucket_metadata.threading = SimpleNamespace(
        **{**vars(bucket_metadata.threading), "Thread": lambda *args, **more: SimpleNamespace(start=lambda: None)}
    )
    network = Network()
    client = promptmill.producer.outputs.gcs._client(promptmill.producer.outputs.open.DEFAULT_CONNECTIONS)
    client._http.trust_env = False  # it looks for proxies and passwords at each request
    if hasattr(requests.utils, "_SupportsItems"):
        requests.utils._SupportsItems = Mapping  # a Protocol, which Python 3.11 takes long to look at
    for scheme in ("http://", "https://"):
        client._http.mount(scheme, network)
    return network
