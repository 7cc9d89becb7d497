"""Temporary folders that nobody has to clean up: what a killed process left goes when the next one makes its own.

Each holds a `lock`, a file that its process has locked (flock), and so have the children that inherit it. A lock that
can be had is that of a process which is gone, whatever its age: a render may last for weeks, and be killed at once.
A folder without `lock` is nobody's to sweep: see `Scratch.keep`. On Windows, which has no flock, nothing is swept.
"""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PREFIX = "promptmill-"
LOCK = "lock"
UNFINISHED = ".unfinished-"  # beside the folder that it will be


def user_cache() -> Path:
    """This user's folder of what can be made anew; not made here. Raises RuntimeError for a user without a home."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "promptmill"


@dataclass(frozen=True)
class Scratch:
    """A folder of this process, and of the children that inherit `lock` (a file descriptor)."""

    folder: Path
    lock: int

    def keep(self) -> None:
        """Leave the folder to whoever was told of it, when this process is gone too."""
        (self.folder / LOCK).unlink(missing_ok=True)


@contextlib.contextmanager
def scratch_folder(name: str, parent: Path | None = None, *, prefix: str = PREFIX) -> Iterator[Scratch]:
    """A folder `PREFIX + NAME + ...` that only this user can read, gone at the end unless it is to be kept.

    It lies in `parent`, or among the temporary files. Raises OSError where it cannot be made.
    """
    parent = parent or Path(tempfile.gettempdir())
    sweep(parent, prefix)
    folder = Path(tempfile.mkdtemp(prefix=f"{prefix}{name}-", dir=parent))
    scratch = Scratch(folder, _lock(folder))
    try:
        yield scratch
    finally:
        if (folder / LOCK).exists():
            shutil.rmtree(folder, ignore_errors=True)
        os.close(scratch.lock)


@contextlib.contextmanager
def appearing_whole(target: Path) -> Iterator[Path]:
    """A folder to fill, which at the end of the block is `target`: it is there whole, or not at all.

    Raises FileExistsError where another is there by then.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(target.name, target.parent, prefix=UNFINISHED) as scratch:
        unfinished = scratch.folder / target.name
        unfinished.mkdir()
        yield unfinished
        try:
            os.rename(unfinished, target)  # noqa: PTH104  (Path.rename says nothing of the folder that is in the way)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from error
            raise


def sweep(parent: Path, prefix: str = PREFIX) -> None:
    """Remove those folders in `parent` whose processes are gone. What cannot be removed stays."""
    if fcntl is None:
        return
    for folder in parent.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):  # another user's, or gone meanwhile, or its process is there
            if folder.lstat().st_uid != os.getuid():
                continue
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(lock)


def _lock(folder: Path) -> int:
    """A descriptor of the folder's lock, which is locked before it has the name by which others know it."""
    unnamed = folder / f"{LOCK}.new"
    lock = os.open(unnamed, os.O_RDWR | os.O_CREAT, 0o600)
    if fcntl is not None:
        fcntl.flock(lock, fcntl.LOCK_EX)
    unnamed.rename(folder / LOCK)
    return lock
