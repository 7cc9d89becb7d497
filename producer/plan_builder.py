"""Lines of the plan -> its packed files, ids and digest. A thread packs a file while the next one fills."""

import contextlib
import hashlib
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import zstandard

from promptmill.producer.errors import PlanError
from promptmill.producer.spool import Heaps, Pages

JOBS_PER_FILE = 10_000

SHAPE_BITS = 20  # of an id's number in the heaps; the others are its index in the run


class PlanBuilder:
    """A plan in the making. `stack` closes what it opens, unless the plan takes it over."""

    def __init__(self, stack: contextlib.ExitStack, page_jobs: int) -> None:
        self.count = 0
        self.page_jobs = page_jobs
        self.pages, self.heaps = Pages(), Heaps()
        self._digest = hashlib.sha256()
        self._lines: list[str] = []
        self._ids: list[str] = []
        self._packer = ThreadPoolExecutor(1, "pack")
        self._packing: deque[Future[bytes]] = deque()
        for close in (self.pages.close, self.heaps.close, self._packer.shutdown):
            stack.callback(close)

    def add(self, digest: bytes, job_id: str, shape_number: int, line: str) -> None:
        """The next job: its id as bytes (the first 16) and as text, its shape's number, its line without the end."""
        self.heaps.add(digest, self.count << SHAPE_BITS | shape_number)
        self._lines.append(line)
        self._ids.append(job_id)
        self.count += 1
        if len(self._lines) == self.page_jobs:
            self._turn_page()

    def finish(self) -> str:
        """Ends the last file; the plan's digest, of its ids in order."""
        if self._lines:
            self._turn_page()
        while self._packing:
            self.pages.append(self._packing.popleft().result())
        self._packer.shutdown()
        return self._digest.hexdigest()

    def _turn_page(self) -> None:
        self._digest.update("".join(self._ids).encode())
        self._packing.append(self._packer.submit(pack_lines, self._lines))
        self._lines, self._ids = [], []
        while len(self._packing) > 1:
            self.pages.append(self._packing.popleft().result())


def pack_lines(lines: Sequence[str]) -> bytes:
    """A file of the plan: the same bytes for the same lines, with one version of zstd."""
    text = "\n".join([*lines, ""]).encode()
    return zstandard.ZstdCompressor(level=3).compress(text)


def unpack(page: bytes) -> list[str]:
    """The lines of a file of the plan. Raises PlanError."""
    try:
        return zstandard.ZstdDecompressor().decompress(page).decode().split("\n")[:-1]
    except (zstandard.ZstdError, UnicodeDecodeError) as error:
        raise PlanError(f"the plan is damaged: a file of it cannot be unpacked: {error}") from error
