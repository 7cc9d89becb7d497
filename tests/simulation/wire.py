"""The network between a simulated process and Redis: redis-py as it is, over a socket that loses and delays.

The socket is a real one to a real Redis; between a request and its answer virtual time goes by.
"""

import errno
from collections.abc import Callable
from typing import Any, Protocol

from tests.simulation.faults import Fate
from tests.simulation.link import Link
from tests.simulation.server import VirtualRedis
from tests.simulation.threads import Process, in_a_task, scheduler

LATENCY_S = (0.001, 0.02)
LATE_S = (0.01, 40.0)


class RedisWorld(Protocol):
    """What the wire asks of the world."""

    server: VirtualRedis
    redis_up: bool
    redis_lives: int
    """How often Redis was started: connections of an earlier life are broken."""

    def redis_fate(self, process: Process) -> Fate: ...
    def uniform(self, low: float, high: float) -> float: ...
    def redis_asked(self, request: bytes) -> str | None: ...
    def arrives_late(self, process: Process) -> None: ...
    def redis_answered(self, process: Process, script: str | None) -> None: ...


class Wire:
    """A socket of redis-py's, as far as redis-py uses one."""

    def __init__(self, world: RedisWorld, process: Process, timeout_s: float) -> None:
        self._world, self._process, self._timeout_s = world, process, timeout_s
        self._life = world.redis_lives
        self._request = self._left = b""
        self._fate = Fate.FINE
        self._link: Link | None = world.server.links.take()

    def settimeout(self, timeout: float | None) -> None:
        """Means nothing here: an answer has come whole, and without a request nothing comes."""

    def sendall(self, data: bytes) -> None:
        self._request += bytes(data)

    def recv(self, size: int) -> bytes:
        if not self._request:
            return self._rest(size)
        request, self._request = self._request, b""
        self._fate = self._world.redis_fate(self._process)
        scheduler().pause(self._world.uniform(*LATENCY_S))
        self._may_arrive(request)
        script = self._world.redis_asked(request)
        assert self._link is not None
        answer = self._link.ask(request)
        self._world.redis_answered(self._process, script)
        scheduler().pause(self._world.uniform(*LATENCY_S))
        if self._fate is Fate.NO_ANSWER or not self._connected:
            raise ConnectionResetError("simulated: the answer was lost")
        if self._fate is Fate.ANSWER_HANGS:
            self._hang()
        self._left = answer
        return self._rest(size)

    def _rest(self, size: int) -> bytes:
        if not self._left:
            raise BlockingIOError(errno.EWOULDBLOCK, "simulated: nothing to read")
        part, self._left = self._left[:size], self._left[size:]
        return part

    def _may_arrive(self, request: bytes) -> None:
        """Raises what a program sees whose request did not arrive, or arrives when it has gone."""
        if self._process.away_until > scheduler().now or self._fate is Fate.HANGS:
            self._hang()
        if not self._connected or self._fate is Fate.NOT_SENT:
            raise ConnectionResetError("simulated: the request was lost")
        late_s, life = self._world.uniform(*LATE_S), self._life
        if self._fate is Fate.SLOW:
            scheduler().pause(min(late_s, self._timeout_s))
            late_s -= self._timeout_s
        if self._fate is Fate.LATE or (self._fate is Fate.SLOW and late_s > 0):
            network = Process("network")
            scheduler().spawn(network, lambda: self._arrive(network, request, late_s, life))
            raise TimeoutError("simulated: the request is late")

    def _arrive(self, network: Process, request: bytes, late_s: float, life: int) -> None:
        scheduler().pause(late_s)
        if self._world.redis_up and self._world.redis_lives == life:
            links = self._world.server.links
            script = self._world.redis_asked(request)
            self._world.arrives_late(self._process)
            other = links.take()
            other.ask(request)
            links.give_back(other)
            self._world.redis_answered(network, script)

    def _hang(self) -> None:
        scheduler().pause(self._timeout_s)
        raise TimeoutError("simulated: no answer")

    @property
    def _connected(self) -> bool:
        return self._world.redis_up and self._life == self._world.redis_lives

    def shutdown(self, how: int) -> None:
        return None

    def close(self) -> None:
        if self._link is not None:
            self._world.server.links.give_back(self._link)
            self._link = None


def connecting(really: Callable[[Any], Any], world_of: Callable[[], RedisWorld]) -> Callable[[Any], Any]:
    """`UnixDomainSocketConnection._connect` for simulated processes; who is none connects as ever."""

    def _connect(self: Any) -> Any:
        if not in_a_task():
            return really(self)
        world, process = world_of(), scheduler().running().process
        scheduler().pause(world.uniform(*LATENCY_S))
        if process.away_until > scheduler().now:
            scheduler().pause(self.socket_connect_timeout or 5.0)
            raise TimeoutError("simulated: no answer")
        if not world.redis_up:
            raise ConnectionRefusedError("simulated: Redis is down")
        return Wire(world, process, self.socket_timeout or 30.0)

    return _connect
