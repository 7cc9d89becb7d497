"""Tar files that are the same bytes whenever they are written of the same members.

Names in order, one fixed time, no owner: what `tar` would take from the machine is left out. POSIX ustar, which every
reader of WebDataset understands. A header differs in name, size and checksum alone, so tarfile makes one, and the
others are that with three fields written over: three members of each image cost less than its digest.
"""

import tarfile
from collections.abc import Callable, Iterable

MTIME = 0
"""Seconds since the epoch, of every member."""

MODE = 0o644

Member = tuple[str, bytes]

_BLOCK, _RECORD = tarfile.BLOCKSIZE, tarfile.RECORDSIZE
_LARGE_BYTES = 64 << 10
_MOST_SMALL = 100
"""Pieces written at once."""

_NAME, _SIZE, _CHECKSUM = slice(0, 100), slice(124, 136), slice(148, 156)
"""Fields of a header: POSIX.1-2001, ustar Interchange Format."""


def write_tar(write: Callable[[bytes], object], members: Iterable[Member]) -> None:
    """Write the members in the order in which they come. Names are ASCII, at most 100 characters."""
    small, size = [], 0  # what is small goes along with what comes next; an image is written as it is, not copied
    for name, data in members:
        small.append(header(name, len(data)))
        if len(data) < _LARGE_BYTES:
            small.append(data)
        else:
            write(b"".join(small))
            write(data)
            small.clear()
        small.append(bytes(-len(data) % _BLOCK))
        size += _BLOCK + len(data) + -len(data) % _BLOCK
        if len(small) > _MOST_SMALL:
            write(b"".join(small))
            small.clear()
    write(b"".join([*small, bytes(2 * _BLOCK + -(size + 2 * _BLOCK) % _RECORD)]))


def header(name: str, size: int) -> bytes:
    """The header of a member."""
    made = bytearray(_EMPTY)
    made[_NAME] = name.encode("ascii").ljust(100, b"\0")
    made[_SIZE] = b"%011o\0" % size
    made[_CHECKSUM] = b" " * 8
    made[_CHECKSUM] = b"%06o\0 " % sum(made)
    return bytes(made)


def _empty() -> bytes:
    info = tarfile.TarInfo("")
    info.mtime, info.mode = MTIME, MODE
    return info.tobuf(tarfile.USTAR_FORMAT)


_EMPTY = _empty()
