"""An output in a folder: `put_once` by a link, which no second writer can make."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from promptmill.producer.outputs.output import (
    RESERVED,
    Content,
    Existing,
    Listed,
    ObjectNotFound,
    OutputConflict,
    OutputError,
    OutputRefused,
    OutputUnavailable,
    OutputUrlError,
    Put,
    check_name,
    judge,
)

_PIECE_BYTES = 1 << 20  # of a file that is copied

_ATTRIBUTE = "user.promptmill."  # before the name of a file's extended attribute
_ATTRIBUTE_CHARACTERS = 200  # ext4 has some 4 kB for all of a file's

# What the system answers to link() where the file system has no hard links: FAT, SMB, most of FUSE, Android.
_NO_HARD_LINKS = {errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
# What it answers where it has no nameless files: other systems than Linux, NFS, no /proc.
_NO_NAMELESS_FILES = {*_NO_HARD_LINKS, errno.EISDIR, errno.EINVAL, errno.ENOENT, errno.EXDEV}
_KINDS: Mapping[int, type[OutputError]] = {
    **dict.fromkeys(
        # ENOENT: the folder was moved away while something was written into it.
        (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOENT),
        OutputUnavailable,
    ),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM, errno.ENXIO, errno.ENODEV, errno.ENOTCONN), OutputRefused),
}
"""What passes by itself, and what somebody has to mend. Anything else is this one object's."""


@dataclass(frozen=True)
class Folder:
    """An output in a folder, also one that several machines share.

    A file appears under its name complete or not at all: it is written without a name, made durable, and then
    linked, which fails where the name is taken. Where the system has no nameless files it has a temporary name
    instead, and a process that dies in between leaves it behind: no listing shows it and anyone may delete it.
    """

    root: Path

    @property
    def url(self) -> str:
        return str(self.root)

    def put_once(
        self,
        name: str,
        data: bytes,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
        ours: Callable[[Existing], bool] | None = None,
        broken: Callable[[Existing], bool] | None = None,
    ) -> Put:
        return self._put(name, Content.of_bytes(data, metadata), ours, broken)

    def put_file(
        self,
        name: str,
        path: Path,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
        ours: Callable[[Existing], bool] | None = None,
        broken: Callable[[Existing], bool] | None = None,
        take: bool = False,
    ) -> Put:
        if take and self._take(path, self._path(name)):
            return Put.CREATED
        return self._put(name, Content.of_file(path), ours, broken)

    def _take(self, path: Path, target: Path) -> bool:
        """Give a file a name here too, durable. False where the name is taken, or the file is on another disk."""
        with _folder_errors("write", target, self.root):
            _make_directories(target.parent)
            try:
                with path.open("rb") as file:
                    os.fsync(file.fileno())
                os.link(path, target)
            except OSError:  # it is copied then, which says what is wrong
                return False
            _sync_directory(target.parent)
        return True

    def _put(
        self,
        name: str,
        content: Content,
        ours: Callable[[Existing], bool] | None,
        broken: Callable[[Existing], bool] | None,
    ) -> Put:
        target = self._path(name)
        with _folder_errors("write", target, self.root):
            _make_directories(target.parent)
            created = _create(target, content)
            # Also when another writer created it: it may have died before it made the name durable.
            _sync_directory(target.parent)
            if created:
                return Put.CREATED
        with _taken(target) as there:  # open: another writer may replace it between two looks
            size = os.fstat(there.fileno()).st_size
            same = size == content.size and _same(content, there)
            put = judge(str(target), content.size, Existing(size, {}, lambda: _whole(there)), same, ours, broken)
        if put is Put.REPLACED:
            with _folder_errors("write", target, self.root), _temporary_file(target.parent, content) as temporary:
                temporary.replace(target)
                _sync_directory(target.parent)
        return put

    def move(self, name: str, to: str) -> None:
        source, target = self._path(name), self._path(to)
        with _folder_errors("move", source, self.root):
            if source.is_dir():
                raise ObjectNotFound(f"there is no {source}")
            _make_directories(target.parent)
            try:
                free = _publish(source, target)
            except FileNotFoundError as error:
                raise ObjectNotFound(f"there is no {source}") from error
            if not free and not _is_second_name(source, target):
                raise OutputConflict(f"cannot move {source}: {target} is taken; both are left as they are")
            source.unlink(missing_ok=True)  # a link is a second name; where there are none, it was renamed
            for directory in (target.parent, source.parent):
                _sync_directory(directory)

    def get(self, name: str) -> bytes:
        path = self._path(name)
        with _folder_errors("read", path, self.root):
            try:
                return path.read_bytes()
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
                raise ObjectNotFound(f"there is no {path}") from error

    def read(self, name: str, start: int, length: int) -> bytes:
        path = self._path(name)
        with _folder_errors("read", path, self.root):
            try:
                with path.open("rb") as file:
                    file.seek(start)
                    return file.read(length)
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
                raise ObjectNotFound(f"there is no {path}") from error

    def metadata(self, name: str) -> Mapping[str, str]:
        path = self._path(name)
        if not self.exists(name):
            raise ObjectNotFound(f"there is no {path}")
        if not hasattr(os, "getxattr"):
            return {}
        with contextlib.suppress(OSError):
            names = [one for one in os.listxattr(path) if one.startswith(_ATTRIBUTE)]
            return {one.removeprefix(_ATTRIBUTE): os.getxattr(path, one).decode() for one in names}
        return {}

    def exists(self, name: str) -> bool:
        path = self._path(name)
        with _folder_errors("read", path, self.root):
            return path.is_file()

    def list(self, prefix: str = "") -> Iterator[str]:
        with _folder_errors("list", self.root, self.root):
            for name, _ in _walk(self.root, "", prefix):
                yield name

    def scan(self, prefix: str = "") -> Iterator[Listed]:
        with _folder_errors("list", self.root, self.root):
            for name, entry in _walk(self.root, "", prefix):
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile, or a link to nothing
                    found = entry.stat()
                    yield Listed(name, found.st_size, changed=found.st_mtime_ns)

    def children(self, prefix: str = "") -> Iterator[str]:
        with _folder_errors("list", self.root, self.root):
            if not self.root.exists():
                return
            with os.scandir(self.root) as entries:
                yield from (entry.name for entry in entries if entry.is_dir() and entry.name.startswith(prefix))

    def child(self, name: str) -> Folder:
        return Folder(self._path(name))

    def reach(self) -> None:
        """A folder is there or is made: nobody has to be asked."""

    def check(self) -> None:
        """Write where the folder is, or else where it will be made: what is only looked at is not made."""
        with _folder_errors("write into", self.root, self.root):
            place = next(place for place in (self.root, *self.root.parents) if place.exists())
            with _temporary_file(place, Content.of_bytes(b"promptmill was here")):
                pass

    def _path(self, name: str) -> Path:
        return self.root / check_name(name)


@contextlib.contextmanager
def _folder_errors(verb: str, path: Path, root: Path) -> Iterator[None]:
    try:
        yield
    except (FileExistsError, NotADirectoryError) as error:
        culprit = _not_a_folder(path, root)
        if culprit is None:
            raise OutputUnavailable(f"cannot {verb} {path}: {error.strerror}, for a moment") from error
        kind: type[OutputError] = OutputError if root in culprit.parents else OutputRefused
        raise kind(f"cannot {verb} {path}: {culprit} is not a folder") from error
    except OSError as error:
        kind = _KINDS.get(error.errno or 0, OutputError)
        raise kind(f"cannot {verb} {path}: {error.strerror or error}") from error


def _not_a_folder(path: Path, root: Path) -> Path | None:
    """What stands in the way to `path`. The error itself may name a descriptor's number instead, and it may be gone."""
    way = [*reversed(path.parents), *([path] if path == root else [])]
    return next((place for place in way if os.path.lexists(place) and not place.is_dir()), None)


@contextlib.contextmanager
def _taken(target: Path) -> Iterator[BinaryIO]:
    """The file in a taken name's place. What cannot be looked at is not ours, and nobody else's images suffer by it."""
    try:
        with target.open("rb") as file:
            yield file
    except (PermissionError, IsADirectoryError) as error:
        raise OutputConflict(f"{target} is taken by something that cannot be read: {error.strerror}") from error
    except OSError as error:
        kind = _KINDS.get(error.errno or 0, OutputError)
        raise kind(f"cannot read {target}: {error.strerror or error}") from error


def _whole(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()


def _make_directories(directory: Path) -> None:
    """`mkdir -p`, each new folder's name made durable in its parent."""
    if directory.is_dir():
        return
    _make_directories(directory.parent)
    directory.mkdir(exist_ok=True)
    _sync_directory(directory.parent)


def _same(content: Content, theirs: BinaryIO) -> bool:
    with content.open() as ours:
        while piece := ours.read(_PIECE_BYTES):
            if theirs.read(len(piece)) != piece:
                return False
        return not theirs.read(1)


def _write(content: Content, file: BinaryIO) -> None:
    """All of it, durable."""
    with content.open() as source:
        shutil.copyfileobj(source, file, _PIECE_BYTES)
    _note(file, content.metadata)
    file.flush()
    os.fsync(file.fileno())


def _note(file: BinaryIO, metadata: Mapping[str, str]) -> None:
    """Keep what is short of the metadata, if the file system takes it."""
    if hasattr(os, "setxattr"):
        with contextlib.suppress(OSError):
            for key, value in metadata.items():
                if len(value) <= _ATTRIBUTE_CHARACTERS:
                    os.setxattr(file.fileno(), f"{_ATTRIBUTE}{key}", value.encode())


def _create(target: Path, content: Content) -> bool:
    """Write the file, whole and durable, unless its name is taken. Whether it was free."""
    try:
        return _create_from_nameless(target, content)
    except OSError as error:
        if error.errno not in _NO_NAMELESS_FILES:
            raise
    with _temporary_file(target.parent, content) as temporary:
        return _publish(temporary, target)


def _create_from_nameless(target: Path, content: Content) -> bool:
    """`_create` with a file that is gone with its process until it has its name: Linux, on most of its file systems."""
    if not hasattr(os, "O_TMPFILE"):
        raise OSError(errno.EOPNOTSUPP, "no nameless files", str(target))
    open_files = os.open("/proc/self/fd", os.O_RDONLY)
    try:
        with os.fdopen(os.open(target.parent, os.O_TMPFILE | os.O_WRONLY, 0o666), "wb") as file:
            _write(content, file)
            os.link(str(file.fileno()), target, src_dir_fd=open_files)
    except FileExistsError:
        return False
    finally:
        os.close(open_files)
    return True


@contextlib.contextmanager
def _temporary_file(directory: Path, content: Content) -> Iterator[Path]:
    """A durable file with the content, in the folder where its final name will be, gone afterwards."""
    # Not `tempfile`: its files are readable by their owner only, and so would be every image.
    path = directory / f"{RESERVED}{secrets.token_hex(8)}.tmp"
    try:
        with path.open("xb") as file:
            _write(content, file)
        yield path
    finally:
        path.unlink(missing_ok=True)


def _publish(temporary: Path, target: Path) -> bool:
    """Give the file its final name, unless the name is taken. Whether it was free."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        return _rename_if_free(temporary, target)
    return True


def _is_second_name(source: Path, target: Path) -> bool:
    """Whether an earlier try to move the file was killed between its two steps."""
    return source != target and os.path.samestat(source.lstat(), target.lstat())


def _rename_if_free(temporary: Path, target: Path) -> bool:
    """`_publish` for a file system without hard links: rename, under a lock that dies with its process."""
    import fcntl  # Not on Windows, whose file systems have hard links.

    with (target.parent / f"{RESERVED}lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.lexists(target):
            return False
        temporary.rename(target)
        return True


def _sync_directory(directory: Path) -> None:
    if os.name == "nt":
        return  # Windows opens no folder.
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _walk(
    directory: Path, base: str, prefix: str, above: frozenset[str] = frozenset()
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Names under `directory`, whose own name is `base`; only what can begin with `prefix` is opened.

    A folder may be a link to one on another disk; one that leads back to a folder `above` is passed over.
    """
    try:
        entries = os.scandir(directory)
    except FileNotFoundError:
        return  # As in a bucket, where nothing is there until something is.
    above = above | {os.path.realpath(directory)}
    with entries:
        for entry in entries:
            name = base + entry.name
            if entry.name.startswith(RESERVED):
                continue
            if entry.is_dir():
                inside = f"{name}/"
                circle = entry.is_symlink() and os.path.realpath(entry.path) in above
                if not circle and (inside.startswith(prefix) or prefix.startswith(inside)):
                    yield from _walk(Path(entry.path), inside, prefix, above)
            elif name.startswith(prefix):
                yield name, entry


def open_folder(path: str, connections: int) -> Folder:
    """The folder at `path`, absolute, `~` expanded. Raises `OutputUrlError`."""
    if not path or "\0" in path:
        raise OutputUrlError(f"output {path!r}: expected the path of a folder, or gs://bucket/prefix")
    try:
        folder = Path(path).expanduser().resolve()
        str(folder).encode()
        return Folder(folder)
    except UnicodeEncodeError as error:
        raise OutputUrlError(f"output {path!r}: the folder's name is not UTF-8, and it has to stand in JSON") from error
    except (OSError, RuntimeError) as error:  # no such user's home, a circle of links
        raise OutputUrlError(f"output {path!r}: {error}") from error


def open_file_url(rest: str, connections: int) -> Folder:
    """The folder that `file://REST` names. Raises `OutputUrlError`."""
    host, slash, path = rest.partition("/")
    if host not in ("", "localhost") or not slash:
        raise OutputUrlError(f"output 'file://{rest}': expected file:///absolute/path")
    return open_folder(slash + urllib.parse.unquote(path), connections)
