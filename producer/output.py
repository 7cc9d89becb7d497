"""Where a run lives: a folder or a bucket, written so that nothing is ever overwritten.

Both sides go through it. The producer puts the plan here, the workers put the images, and what is here
decides what is still missing. A write can be repeated by anybody at any time: `put_once` creates the object,
or finds that it is there already and adopts it, or refuses.

    OutputError              anything that went wrong with an output
        OutputUrlError       a URL or a name that no output can have: the caller's mistake
        OutputConflict       the name is taken by something that is not ours
        ObjectNotFound       there is nothing of that name
        OutputUnavailable    the storage did not answer, or was full: the same call may work later

A new kind of storage is a class with `Output`'s methods and a row in `SCHEMES`.
"""

from __future__ import annotations

import base64
import contextlib
import enum
import errno
import os
import secrets
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

from producer.errors import PromptmillError

# Path components that begin with this are ours and no object's: temporary files and locks.
RESERVED = ".promptmill-"

# How many uploads may be in the air at once. The client's own pool is 10, and closes connections above it.
DEFAULT_CONNECTIONS = 64

# Google refuses an object whose custom metadata, keys and values in UTF-8, is larger.
MAX_METADATA_BYTES = 8192

# Connecting, and waiting for an answer.
_REQUEST_TIMEOUT_SECONDS = (10, 60)
# How long the client repeats a request that failed in a way that passes.
_RETRY_SECONDS = 120
# A person waits for this one.
_CHECK_RETRY_SECONDS = 10

# What the system answers to link() where the file system has no hard links: FAT, SMB, most of FUSE, Android.
_NO_HARD_LINKS = {errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
# What it answers where it has no nameless files: other systems than Linux, NFS, no /proc.
_NO_NAMELESS_FILES = {*_NO_HARD_LINKS, errno.EISDIR, errno.EINVAL, errno.ENOENT, errno.EXDEV}
_PASSING_ERRNOS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.ESTALE,
    errno.EMFILE,
    errno.ENFILE,
    errno.EAGAIN,
}


class OutputError(PromptmillError):
    """Something went wrong with an output."""


class OutputUrlError(OutputError):
    """A URL or a name that no output can have."""


class OutputConflict(OutputError):
    """The name is taken by an object that is not ours."""


class ObjectNotFound(OutputError):
    """There is no object of that name."""


class OutputUnavailable(OutputError):
    """The storage did not answer, or had no room. The same call may work later."""


class Put(enum.Enum):
    """What `put_once` did: wrote the object, or found that it was there already."""

    CREATED = "created"
    ADOPTED = "adopted"


@dataclass(frozen=True)
class Existing:
    """The object that `put_once` found in its place. A folder keeps no metadata: look inside the file."""

    size: int
    metadata: Mapping[str, str]
    reader: Callable[[], bytes]

    def read(self) -> bytes:
        """The object's bytes, fetched when asked for."""
        return self.reader()


class Output(Protocol):
    """A place that holds named objects. Safe to share between threads."""

    @property
    def url(self) -> str:
        """`gs://bucket/prefix`, or the folder's absolute path."""

    def put_once(
        self,
        name: str,
        data: bytes,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
        ours: Callable[[Existing], bool] | None = None,
    ) -> Put:
        """Create the object, or adopt it when it is there already: the same bytes, or `ours` says so.

        `metadata` is kept by a bucket only, at most `MAX_METADATA_BYTES` of it.

        Raises:
            OutputConflict: the name is taken by something else. It is left as it is.
            OutputUnavailable: the storage did not answer, or is full.
            OutputError: the storage refused.
        """

    def get(self, name: str) -> bytes:
        """The object's bytes. Raises `ObjectNotFound`."""

    def exists(self, name: str) -> bool:
        """Whether there is an object of that name."""

    def list(self, prefix: str = "") -> Iterator[str]:
        """The names that begin with `prefix`, one after the other, in no promised order."""

    def child(self, name: str) -> Output:
        """The output inside this one: `OUTPUT` -> `OUTPUT/RUN`."""

    def check(self) -> None:
        """Find out now, not at the first image, that the place can be used. Creates a missing folder.

        Raises:
            OutputError: it cannot; the text says what to do.
        """


def open_output(url: str, *, connections: int = DEFAULT_CONNECTIONS) -> Output:
    """The output at `url`: `gs://bucket/prefix`, `file:///folder`, or the path of a folder (`~` is expanded).

    Raises:
        OutputUrlError: no such kind of storage, or a URL that says too little.
        OutputError: no Google credentials.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
        head, colon, _ = url.partition(":")
        if colon and head and head in SCHEMES:
            raise OutputUrlError(f"output {url!r}: expected two slashes after the colon, as in gs://bucket/prefix")
    if scheme not in SCHEMES:
        known = ", ".join(f"{name}://" for name in SCHEMES if name)
        raise OutputUrlError(f"output {url!r}: there is no storage {scheme}://; known are {known} and a folder's path")
    return SCHEMES[scheme](rest, connections)


def check_name(name: str) -> str:
    """`name` itself, if an object may be called so in every kind of storage. Raises `OutputUrlError`."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise OutputUrlError(f"object name {name!r}: neither '/' at an end, nor empty, '.' or '..' between slashes")
    if "\\" in name or any(ord(character) < 32 or ord(character) == 127 for character in name):
        raise OutputUrlError(f"object name {name!r}: no backslash and no control character")
    if any(part.startswith(RESERVED) for part in parts):
        raise OutputUrlError(f"object name {name!r}: names that begin with {RESERVED!r} are kept for temporary files")
    return name


def _adopt(where: str, data: bytes, there: Existing, same: bool, ours: Callable[[Existing], bool] | None) -> Put:
    if same or (ours is not None and ours(there)):
        return Put.ADOPTED
    raise OutputConflict(
        f"{where} is taken by something else ({there.size} bytes there, {len(data)} here); "
        "it is left as it is: choose another run name or output"
    )


# --- a folder -----------------------------------------------------------------------------------------------


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
    ) -> Put:
        target = self._path(name)
        with _folder_errors("write", target):
            _make_directories(target.parent)
            created = _create(target, data)
            # Also when another writer created it: it may have died before it made the name durable.
            _sync_directory(target.parent)
            if created:
                return Put.CREATED
            size = target.stat().st_size
            same = size == len(data) and target.read_bytes() == data
        return _adopt(str(target), data, Existing(size, {}, lambda: self.get(name)), same, ours)

    def get(self, name: str) -> bytes:
        path = self._path(name)
        with _folder_errors("read", path):
            try:
                return path.read_bytes()
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
                raise ObjectNotFound(f"there is no {path}") from error

    def exists(self, name: str) -> bool:
        path = self._path(name)
        with _folder_errors("read", path):
            return path.is_file()

    def list(self, prefix: str = "") -> Iterator[str]:
        with _folder_errors("list", self.root):
            yield from _walk(self.root, "", prefix)

    def child(self, name: str) -> Folder:
        return Folder(self._path(name))

    def check(self) -> None:
        with _folder_errors("write into", self.root):
            _make_directories(self.root)
            with _temporary_file(self.root, b"promptmill was here"):
                pass

    def _path(self, name: str) -> Path:
        return self.root / check_name(name)


@contextlib.contextmanager
def _folder_errors(verb: str, path: Path) -> Iterator[None]:
    try:
        yield
    except (FileExistsError, NotADirectoryError) as error:
        raise OutputError(f"cannot {verb} {path}: {error.filename} is not a folder") from error
    except OSError as error:
        kind = OutputUnavailable if error.errno in _PASSING_ERRNOS else OutputError
        raise kind(f"cannot {verb} {path}: {error.strerror or error}") from error


def _make_directories(directory: Path) -> None:
    """`mkdir -p`, each new folder's name made durable in its parent."""
    if directory.is_dir():
        return
    _make_directories(directory.parent)
    directory.mkdir(exist_ok=True)
    _sync_directory(directory.parent)


def _create(target: Path, data: bytes) -> bool:
    """Write the file, whole and durable, unless its name is taken. Whether it was free."""
    try:
        return _create_from_nameless(target, data)
    except OSError as error:
        if error.errno not in _NO_NAMELESS_FILES:
            raise
    with _temporary_file(target.parent, data) as temporary:
        return _publish(temporary, target)


def _create_from_nameless(target: Path, data: bytes) -> bool:
    """`_create` with a file that is gone with its process until it has its name: Linux, on most of its file systems."""
    if not hasattr(os, "O_TMPFILE"):
        raise OSError(errno.EOPNOTSUPP, "no nameless files", str(target))
    open_files = os.open("/proc/self/fd", os.O_RDONLY)
    try:
        with os.fdopen(os.open(target.parent, os.O_TMPFILE | os.O_WRONLY, 0o666), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.link(str(file.fileno()), target, src_dir_fd=open_files)
    except FileExistsError:
        return False
    finally:
        os.close(open_files)
    return True


@contextlib.contextmanager
def _temporary_file(directory: Path, data: bytes) -> Iterator[Path]:
    """A durable file with `data`, in the folder where its final name will be, gone afterwards."""
    # Not `tempfile`: its files are readable by their owner only, and so would be every image.
    path = directory / f"{RESERVED}{secrets.token_hex(8)}.tmp"
    try:
        with path.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
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


def _walk(directory: Path, base: str, prefix: str) -> Iterator[str]:
    """Names under `directory`, whose own name is `base`; only what can begin with `prefix` is opened."""
    try:
        entries = os.scandir(directory)
    except FileNotFoundError:
        return  # As in a bucket, where nothing is there until something is.
    with entries:
        for entry in entries:
            name = base + entry.name
            if entry.name.startswith(RESERVED):
                continue
            if entry.is_dir(follow_symlinks=False):
                inside = f"{name}/"
                if inside.startswith(prefix) or prefix.startswith(inside):
                    yield from _walk(Path(entry.path), inside, prefix)
            elif name.startswith(prefix):
                yield name


def _open_folder(path: str, connections: int) -> Folder:
    if not path or "\0" in path:
        raise OutputUrlError(f"output {path!r}: expected the path of a folder, or gs://bucket/prefix")
    try:
        return Folder(Path(path).expanduser().resolve())
    except (OSError, RuntimeError) as error:  # no such user's home, a circle of links
        raise OutputUrlError(f"output {path!r}: {error}") from error


def _open_file_url(rest: str, connections: int) -> Folder:
    host, slash, path = rest.partition("/")
    if host not in ("", "localhost") or not slash:
        raise OutputUrlError(f"output 'file://{rest}': expected file:///absolute/path")
    return _open_folder(slash + urllib.parse.unquote(path), connections)


# --- a bucket -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bucket:
    """An output in Google Cloud Storage, or in the server that `STORAGE_EMULATOR_HOST` names."""

    client: Any  # google.cloud.storage.Client, which is slow to import
    bucket: str
    prefix: str  # "" or "a/b/"

    @property
    def url(self) -> str:
        return f"gs://{self.bucket}/{self.prefix}".rstrip("/")

    def put_once(
        self,
        name: str,
        data: bytes,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
        ours: Callable[[Existing], bool] | None = None,
    ) -> Put:
        from google.api_core.exceptions import PreconditionFailed

        blob = self._blob(name)
        where = f"gs://{self.bucket}/{blob.name}"
        blob.metadata = dict(metadata or {})
        _check_metadata(where, blob.metadata)
        with self._errors(f"write {where}"):
            try:
                blob.upload_from_string(
                    data,
                    content_type=content_type,
                    if_generation_match=0,  # only where no object is: enforced by the server, safe to retry
                    checksum="crc32c",
                    timeout=_REQUEST_TIMEOUT_SECONDS,
                    retry=_retry(),
                )
                return Put.CREATED
            except PreconditionFailed as error:
                refused = error
        # Another writer was first, or we were, and the answer to our first try was lost on its way.
        there = self._find(name)
        if there is None:
            raise OutputError(f"cannot write {where}: the server says it exists, yet it does not") from refused
        same = there.size == len(data) and there.crc32c == _crc32c(data)
        existing = Existing(there.size, there.metadata or {}, lambda: self._read(name, there.generation))
        return _adopt(where, data, existing, same, ours)

    def get(self, name: str) -> bytes:
        return self._read(name)

    def exists(self, name: str) -> bool:
        return self._find(name) is not None

    def list(self, prefix: str = "") -> Iterator[str]:
        with self._errors(f"list {self.url}/{prefix}"):
            # Page after page, fetched as they are asked for.
            blobs = self.client.list_blobs(
                self.bucket,
                prefix=self.prefix + prefix,
                page_size=1000,
                fields="items(name),nextPageToken",
                timeout=_REQUEST_TIMEOUT_SECONDS,
                retry=_retry(),
            )
            for blob in blobs:
                # Google's console makes a folder by an empty object whose name ends in a slash.
                if not blob.name.endswith("/"):
                    yield blob.name.removeprefix(self.prefix)

    def child(self, name: str) -> Bucket:
        return Bucket(self.client, self.bucket, f"{self.prefix}{check_name(name)}/")

    def check(self) -> None:
        # By a listing: asking for the bucket itself wants a permission that writers of objects do not have.
        with self._errors(f"use {self.url}"):
            first = self.client.list_blobs(
                self.bucket,
                prefix=self.prefix,
                max_results=1,
                timeout=_REQUEST_TIMEOUT_SECONDS,
                retry=_retry(_CHECK_RETRY_SECONDS),
            )
            for _ in first:
                pass

    def _blob(self, name: str, generation: int | None = None) -> Any:
        return self.client.bucket(self.bucket).blob(self.prefix + check_name(name), generation=generation)

    def _find(self, name: str) -> Any | None:
        """The object with its size, checksum, metadata and generation, or None."""
        blob = self._blob(name)
        with self._errors(f"look at gs://{self.bucket}/{blob.name}"):
            return blob.bucket.get_blob(blob.name, timeout=_REQUEST_TIMEOUT_SECONDS, retry=_retry())

    def _read(self, name: str, generation: int | None = None) -> bytes:
        """The bytes of the object, or of that generation of it, which is what `_find` saw."""
        from google.api_core.exceptions import NotFound

        # Not the blob that `_find` got: it would be fetched from the address that the server gives itself, and an
        # emulator in another container may not know the right one.
        blob = self._blob(name, generation)
        with self._errors(f"read gs://{self.bucket}/{blob.name}"):
            try:
                data: bytes = blob.download_as_bytes(timeout=_REQUEST_TIMEOUT_SECONDS, retry=_retry())
            except NotFound as error:
                raise ObjectNotFound(f"there is no gs://{self.bucket}/{blob.name}") from error
        return data

    @contextlib.contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError
        from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
        from requests import RequestException

        try:
            yield
        except (GoogleAPIError, GoogleAuthError, RequestException, DataCorruption, InvalidResponse) as error:
            _raise_output_error(error, doing, self.bucket)


def _raise_output_error(error: Exception, doing: str, bucket: str) -> NoReturn:
    """Say in the user's terms what Google's client said in its own."""
    from google.api_core import exceptions as api
    from google.auth.exceptions import GoogleAuthError, TransportError
    from google.cloud.storage.exceptions import InvalidResponse

    if isinstance(error, api.NotFound):
        raise OutputError(f'cannot {doing}: bucket "{bucket}" does not exist or cannot be seen') from error
    if isinstance(error, api.Forbidden | api.Unauthorized):
        raise OutputError(
            f"cannot {doing}: these Google credentials may not; they need the role Storage Object User "
            f'(roles/storage.objectUser) on bucket "{bucket}": {error.message}'
        ) from error
    if isinstance(error, GoogleAuthError) and not isinstance(error, TransportError):
        raise OutputError(f"cannot {doing}: {_login_sentence()}: {error}") from error
    if isinstance(error, api.ClientError) and not isinstance(error, api.TooManyRequests):
        raise OutputError(f"cannot {doing}: {error.message}") from error
    cause = getattr(error, "cause", None) or error  # of a RetryError: what the last try met
    if isinstance(cause, InvalidResponse):
        cause = f"HTTP status {cause.response.status_code}"
    server = _emulator() or "Google Cloud Storage"
    raise OutputUnavailable(f"cannot {doing}: no good answer from {server}: {cause}") from error


def _login_sentence() -> str:
    return (
        "no working Google credentials; run `gcloud auth application-default login`, "
        "or let GOOGLE_APPLICATION_CREDENTIALS name a service account's key file"
    )


def _check_metadata(where: str, metadata: Mapping[str, str]) -> None:
    size = sum(len(key.encode()) + len(value.encode()) for key, value in metadata.items())
    if size > MAX_METADATA_BYTES:
        raise OutputError(f"cannot write {where}: {size} bytes of metadata, and Google takes {MAX_METADATA_BYTES}")


def _crc32c(data: bytes) -> str:
    """The checksum as Google writes it: big-endian, in base64."""
    import google_crc32c

    return base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()


def _retry(seconds: float | None = None) -> Any:
    from google.cloud.storage.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_timeout(seconds or _RETRY_SECONDS)


def _emulator() -> str | None:
    url = os.environ.get("STORAGE_EMULATOR_HOST")
    if url and "://" not in url:
        raise OutputUrlError(f"STORAGE_EMULATOR_HOST={url}: expected a URL such as http://localhost:4443")
    return url


# State: one client a server and pool size. Making one costs a login, and its connections are worth keeping.
_clients: dict[tuple[str | None, int], Any] = {}
_clients_lock = threading.Lock()


def _client(connections: int) -> Any:
    key = (_emulator(), connections)
    with _clients_lock:
        if key not in _clients:
            _clients[key] = _new_client(connections)
        return _clients[key]


def _new_client(connections: int) -> Any:
    from google.auth.exceptions import GoogleAuthError
    from google.cloud import storage
    from requests.adapters import HTTPAdapter

    try:
        # No project: objects have none, and to look for one can fail. An emulator gets anonymous credentials.
        client = storage.Client(project=None)
    except GoogleAuthError as error:
        raise OutputError(f"cannot use Google Cloud Storage: {_login_sentence()}: {error}") from error
    for scheme in ("https://", "http://"):
        client._http.mount(scheme, HTTPAdapter(pool_maxsize=connections))
    return client


def _open_bucket(rest: str, connections: int) -> Bucket:
    bucket, _, prefix = rest.partition("/")
    if not bucket:
        raise OutputUrlError(f"output 'gs://{rest}': the bucket is missing; expected gs://bucket/prefix")
    prefix = prefix.strip("/")
    return Bucket(_client(connections), bucket, f"{check_name(prefix)}/" if prefix else "")


SCHEMES: Mapping[str, Callable[[str, int], Output]] = {
    "": _open_folder,
    "file": _open_file_url,
    "gs": _open_bucket,
}
