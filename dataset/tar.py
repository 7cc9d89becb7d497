"""Tar files that are the same bytes whenever they are written of the same members.

Names in order, one fixed time, no owner: what `tar` would take from the machine is left out. POSIX ustar, which every
reader of WebDataset understands.
"""

import io
import tarfile
from collections.abc import Iterable
from typing import IO

MTIME = 0
"""Seconds since the epoch, of every member."""

Member = tuple[str, bytes]


def write_tar(file: IO[bytes], members: Iterable[Member]) -> None:
    """Write the members in the order in which they come. Names are ASCII, at most 100 characters."""
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            header = tarfile.TarInfo(name)
            header.size, header.mtime, header.mode = len(data), MTIME, 0o644
            tar.addfile(header, io.BytesIO(data))
            tar.members = []  # type: ignore[attr-defined]  # else each header stays in memory until the end
