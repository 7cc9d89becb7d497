"""A real Redis under a virtual clock: what a simulated world keeps its queue in."""

import contextlib
import mmap
import os
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis

from promptmill.embedded import find_server
from promptmill.producer.errors import BrokerError
from tests.simulation.link import Link, Links

EPOCH_S = 1_800_000_000

# Copies all keys of one database into another: with their groups, what is pending in those, and their expiries.
_COPY = """
redis.call('SELECT', ARGV[2])
redis.call('FLUSHDB')
redis.call('SELECT', ARGV[1])
for _, name in ipairs(redis.call('KEYS', '*')) do redis.call('COPY', name, name, 'DB', ARGV[2]) end
"""

# Of each run: its hash, its bits, and the indexes in its streams.
_LOOK = """
local runs = {}
for _, run in ipairs(ARGV) do
  local name = 'promptmill:run:' .. run
  local streams = {}
  for _, shape in ipairs(redis.call('SMEMBERS', name .. ':shapes')) do
    for _, entry in ipairs(redis.call('XRANGE', 'promptmill:queue:' .. run .. ':' .. shape, '-', '+')) do
      streams[#streams + 1] = entry[2][2]
    end
  end
  local said = redis.call('HMGET', name, 'state', 'done', 'failed', 'queued', 'enqueued', 'images')
  runs[#runs + 1] = {said[1], said[2], said[3], said[4], said[5], said[6], redis.call('GET', name .. ':done') or '',
    redis.call('GET', name .. ':failed') or '', redis.call('HLEN', name .. ':failures'), streams}
end
return runs
"""


# The run and index of each job that is pending under a consumer of this host.
_HELD = """
local found = {}
for _, run in ipairs(ARGV) do
  for _, shape in ipairs(redis.call('SMEMBERS', 'promptmill:run:' .. run .. ':shapes')) do
    local name = 'promptmill:queue:' .. run .. ':' .. shape
    for _, p in ipairs(redis.call('XPENDING', name, 'workers', '-', '+', 100)) do
      local entry = redis.call('XRANGE', name, p[1], p[1])[1]
      if entry then found[#found + 1] = {run, tonumber(entry[2][2]), p[2]} end
    end
  end
end
return found
"""


class VirtualRedis:
    """One server, for one world after the other."""

    def __init__(self, socket: Path, clock: mmap.mmap) -> None:
        self.socket = socket
        self.url = f"unix://{socket}?db=0"
        self.links = Links(socket)
        self._clock = clock
        self.raw: Any = redis.Redis(unix_socket_path=str(socket))
        self._link: Link | None = None
        self._seen: dict[str, Any] = {}
        """What was found of each run since anything changed."""

    def set_clock(self, seconds: float) -> None:
        """What its clock shows, in seconds after EPOCH_S."""
        self._clock[:8] = struct.pack("q", int((EPOCH_S + seconds) * 1e6))

    def _run(self, script: str, *args: str) -> Any:
        """redis-py takes three times as long, and this is asked a hundred times in a story."""
        self._link = self._link or self.links.take()
        return self._link.run(script, *args)

    def changed(self) -> None:
        """A request has changed what `look` shows, or may have."""
        self._seen.clear()

    def wipe(self) -> None:
        self.changed()
        self.raw.flushall()

    def keep(self) -> None:
        """What is on its disk from now on."""
        self._run(_COPY, "0", "1")

    def restart(self) -> None:
        """All that came since `keep` is lost; so are the scripts that it knew."""
        self.changed()
        self._run(_COPY, "1", "0")
        self.raw.script_flush()

    def held(self, runs: list[str]) -> list[tuple[str, int, str]]:
        """Run, index and consumer of all that is claimed."""
        return [(run.decode(), int(index), who.decode()) for run, index, who in self._run(_HELD, *runs)]

    def look(self, runs: list[str]) -> list[Any]:
        if unseen := [run for run in runs if run not in self._seen]:
            self._seen.update(zip(unseen, self._run(_LOOK, *unseen), strict=True))
        return [self._seen[run] for run in runs]


@contextlib.contextmanager
def virtual_redis() -> Iterator[VirtualRedis]:
    """A server of this process. Raises BrokerError where there is none, and no C compiler for its clock."""
    program, compiler = find_server(), shutil.which("cc")
    if not program or not compiler:
        raise BrokerError("a simulation needs redis-server and a C compiler (cc) on the PATH")
    folder = Path(tempfile.mkdtemp(prefix="promptmill-simulation-"))
    server = None
    try:
        shim, page = folder / "clock.so", folder / "clock"
        source = Path(__file__).with_name("clock.c")
        subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", shim, source, "-ldl"], check=True)
        page.write_bytes(struct.pack("q", EPOCH_S * 1_000_000))
        environ = {**os.environ, "LD_PRELOAD": str(shim), "PROMPTMILL_CLOCK": str(page)}
        options = ["--port", "0", "--unixsocket", "s", "--save", "", "--appendonly", "no", "--logfile", "log"]
        server = subprocess.Popen([program, *options], cwd=folder, env=environ, stdout=subprocess.DEVNULL)
        with page.open("r+b") as file:
            clock = mmap.mmap(file.fileno(), 8)
        found = _when_up(VirtualRedis(folder / "s", clock), server, folder / "log")
        with contextlib.closing(found.links):
            yield found
    finally:
        if server is not None:
            server.kill()
            server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _when_up(found: VirtualRedis, server: subprocess.Popen[bytes], log: Path) -> VirtualRedis:
    deadline = time.monotonic() + 20
    while True:
        try:
            found.raw.ping()
            return found
        except redis.RedisError as error:
            if server.poll() is not None or time.monotonic() > deadline:
                raise BrokerError(f"redis-server did not start: {log.read_text() if log.exists() else ''}") from error
            time.sleep(0.01)
