"""An output in Google Cloud Storage: `put_once` by `if_generation_match=0`, which the server enforces."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from promptmill.producer.outputs.output import (
    SCANNED,
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

# Google refuses an object whose custom metadata, keys and values in UTF-8, is larger.
MAX_METADATA_BYTES = 8192

# In an object's metadata: the checksum of what was put. The server keeps its own, of what is there.
CHECKSUM_KEY = "crc32c"

# Google's rule, but for lengths and capitals: what cannot be a name would be part of another request's address.
_BUCKET = re.compile(r"[A-Za-z0-9]([\w.-]*[A-Za-z0-9])?", re.ASCII)
# What the client sends in one request. More goes piece by piece, the precondition with the first and the last; Google
# holds it there too, which fake-gcs-server does not.
ONE_REQUEST_BYTES = 8 << 20

# Of an object that others replace at the same time.
_REPLACING_TRIES = 5
# Of an object whose bytes do not match their checksum: Google's client does not ask again.
_DOWNLOAD_TRIES = 4
# Connecting, and waiting for an answer.
_REQUEST_TIMEOUT_SECONDS = (10, 60)
# How long the client repeats a request that failed in a way that passes.
_RETRY_SECONDS = 120
# Of an object that is read piece by piece.
_READ_BYTES = 4 << 20
# A person waits for this one.
_CHECK_RETRY_SECONDS = 10
_LOG_IN = (
    "no working Google credentials; run `gcloud auth application-default login`, "
    "or let GOOGLE_APPLICATION_CREDENTIALS name a service account's key file"
)


class _SessionForgotten(Exception):
    """The server knows no more of an upload in pieces, which may be over: its last answer may have been lost."""


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
        broken: Callable[[Existing], bool] | None = None,
    ) -> Put:
        return self._put(name, Content.of_bytes(data), content_type, metadata, ours, broken)

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
        return self._put(name, Content.of_file(path), content_type, metadata, ours, broken)

    def _put(
        self,
        name: str,
        content: Content,
        content_type: str,
        metadata: Mapping[str, str] | None,
        ours: Callable[[Existing], bool] | None,
        broken: Callable[[Existing], bool] | None,
    ) -> Put:
        from google.api_core.exceptions import PreconditionFailed

        blob = self._blob(name)
        where = f"gs://{self.bucket}/{blob.name}"
        blob.metadata = {**(metadata or {}), CHECKSUM_KEY: _crc32c(content)}
        _check_metadata(where, blob.metadata)
        # Of gigabytes it is worth a request to know beforehand.
        there = self._find(name) if content.size > ONE_REQUEST_BYTES else None
        generation = 0  # only where no object is: enforced by the server, safe to retry
        for _ in range(_REPLACING_TRIES):
            if there is not None:
                same = there.size == content.size and there.crc32c == blob.metadata[CHECKSUM_KEY]
                existing = Existing(
                    there.size, there.metadata or {}, partial(self._read, name, there.generation), _is_intact(there)
                )
                try:
                    if judge(where, content.size, existing, same, ours, broken) is Put.ADOPTED:
                        return Put.ADOPTED
                    generation = there.generation
                except ObjectNotFound:  # another writer replaced it while it was looked at
                    generation = 0
            try:
                self._upload(blob, where, content, content_type, generation)
                return Put.REPLACED if generation else Put.CREATED
            except (PreconditionFailed, _SessionForgotten) as refused:
                # Another writer was first, or we were, and the answer to our first try was lost on its way.
                there, generation = self._find(name), 0
                if there is None and isinstance(refused, PreconditionFailed):
                    raise OutputError(f"cannot write {where}: the server says it exists, yet it does not") from refused
        raise OutputUnavailable(f"cannot write {where}: others write there all the time")

    def _upload(self, blob: Any, where: str, content: Content, content_type: str, generation: int) -> None:
        """Raises PreconditionFailed where the object is of another generation (0: none); _SessionForgotten."""
        from google.api_core.exceptions import GoogleAPICallError, PreconditionFailed

        refused: Exception | None = None
        with self._errors(f"write {where}"), content.open() as file:
            try:
                blob.upload_from_file(
                    file,
                    size=content.size,
                    content_type=content_type,
                    if_generation_match=generation,
                    checksum="crc32c",
                    timeout=_REQUEST_TIMEOUT_SECONDS,
                    retry=_retry(),
                )
            except PreconditionFailed as error:
                refused = error
            except GoogleAPICallError as error:
                if error.code not in (404, 410) or error.response.request.method != "PUT":  # POST: no such bucket
                    raise
                refused = _SessionForgotten(str(error))
        if refused is not None:
            raise refused

    def move(self, name: str, to: str) -> None:
        from google.api_core.exceptions import NotFound, PreconditionFailed

        found = self._find(name)
        where = f"gs://{self.bucket}/{self.prefix}{name}"
        if found is None:
            raise ObjectNotFound(f"there is no {where}")
        taken = OutputConflict(f"cannot move {where}: {to} is taken; both are left as they are")
        source, target = self._blob(name, found.generation), self._blob(to)
        target.metadata, target.content_type = found.metadata, found.content_type
        options = {"timeout": _REQUEST_TIMEOUT_SECONDS, "retry": _retry()}
        # Google holds the precondition of a rewrite too, fake-gcs-server does not.
        copied = self._is_copied(found, to, taken)
        with self._errors(f"move {where}"):
            try:
                token = None
                while not copied:  # the larger ones take several requests
                    token, _, _ = target.rewrite(source, token=token, if_generation_match=0, **options)
                    copied = token is None
            except PreconditionFailed as error:  # another writer was first, or we were, and nobody heard the answer
                if not self._is_copied(found, to, taken):
                    raise taken from error
            except NotFound as error:
                raise ObjectNotFound(f"{where} was deleted or written anew while it was moved") from error
            try:
                self._blob(name).delete(if_generation_match=found.generation, **options)
            except NotFound:
                pass  # somebody else was faster, or our first try was, whose answer was lost
            except PreconditionFailed as error:
                raise ObjectNotFound(f"{where} was written anew while it was moved") from error

    def _is_copied(self, found: Any, to: str, taken: OutputConflict) -> bool:
        """Whether an earlier try to move what was `found` has copied it. Raises `taken` where something else is."""
        there = self._find(to)
        if there is None:
            return False
        if there.name == found.name or any(
            getattr(there, told) != getattr(found, told) for told in ("size", "crc32c", "metadata")
        ):
            raise taken
        return True

    def get(self, name: str) -> bytes:
        return self._read(name)

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """The object as it is now, some MiB at a time. Raises ObjectNotFound, also for one overwritten meanwhile."""
        from google.api_core.exceptions import NotFound

        found = self._find(name)
        where = f"gs://{self.bucket}/{self.prefix}{name}"
        if found is None:
            raise ObjectNotFound(f"there is no {where}")
        blob = self._blob(name, found.generation)
        with self._errors(f"read {where}"):
            try:
                with blob.open("rb", _READ_BYTES, timeout=_REQUEST_TIMEOUT_SECONDS, retry=_retry()) as file:
                    yield file
            except NotFound as error:
                raise ObjectNotFound(f"{where} was deleted or written anew while it was read") from error

    def metadata(self, name: str) -> Mapping[str, str]:
        found = self._find(name)
        if found is None:
            raise ObjectNotFound(f"there is no gs://{self.bucket}/{self.prefix}{name}")
        return found.metadata or {}

    def exists(self, name: str) -> bool:
        return self._find(name) is not None

    def read(self, name: str, start: int, length: int) -> bytes:
        return self._read(name, part=(start, length)) if length else b""

    def list(self, prefix: str = "") -> Iterator[str]:
        for blob in self._list(prefix, "name"):
            yield blob.name.removeprefix(self.prefix)

    def scan(self, prefix: str = "") -> Iterator[Listed]:
        metadata = ",".join(f"metadata/{key}" for key in SCANNED)
        for blob in self._list(prefix, f"name,size,crc32c,{metadata}"):
            name = blob.name.removeprefix(self.prefix)
            yield Listed(name, blob.size, blob.metadata or {}, _is_intact(blob), blob.crc32c)

    def _list(self, prefix: str, fields: str) -> Iterator[Any]:
        with self._errors(f"list {self.url}/{prefix}"):
            # Page after page, fetched as they are asked for.
            blobs = self.client.list_blobs(
                self.bucket,
                prefix=self.prefix + prefix,
                page_size=1000,
                fields=f"items({fields}),nextPageToken",
                timeout=_REQUEST_TIMEOUT_SECONDS,
                retry=_retry(),
            )
            for blob in blobs:
                # Google's console makes a folder by an empty object whose name ends in a slash.
                if not blob.name.endswith("/"):
                    yield blob

    def children(self, prefix: str = "") -> Iterator[str]:
        with self._errors(f"list {self.url}/{prefix}"):
            listing = self.client.list_blobs(
                self.bucket,
                prefix=self.prefix + prefix,
                delimiter="/",
                fields="prefixes,nextPageToken",
                timeout=_REQUEST_TIMEOUT_SECONDS,
                retry=_retry(),
            )
            for page in listing.pages:
                yield from (name.removeprefix(self.prefix).rstrip("/") for name in page.prefixes)

    def child(self, name: str) -> Bucket:
        return Bucket(self.client, self.bucket, f"{self.prefix}{check_name(name)}/")

    def check(self) -> None:
        self.reach()

    def reach(self) -> None:
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

    def _read(self, name: str, generation: int | None = None, part: tuple[int, int] | None = None) -> bytes:
        """The bytes of the object, or of that generation of it, which is what `_find` saw; all, or start and length."""
        from google.api_core.exceptions import NotFound, RequestRangeNotSatisfiable

        # Not the blob that `_find` got: it would be fetched from the address that the server gives itself, and an
        # emulator in another container may not know the right one.
        blob = self._blob(name, generation)
        with self._errors(f"read gs://{self.bucket}/{blob.name}"):
            try:
                return _download(blob, part)
            except RequestRangeNotSatisfiable:  # it ends before
                return b""
            except NotFound as error:
                raise ObjectNotFound(f"there is no gs://{self.bucket}/{blob.name}") from error

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


def _download(blob: Any, part: tuple[int, int] | None) -> bytes:
    """The object's bytes, or a part's. Those that do not match the checksum of the whole are asked for again."""
    from google.cloud.storage.exceptions import DataCorruption

    start, end = (None, None) if part is None else (part[0], part[0] + part[1] - 1)
    for tries_left in reversed(range(_DOWNLOAD_TRIES)):
        try:
            data: bytes = blob.download_as_bytes(start=start, end=end, timeout=_REQUEST_TIMEOUT_SECONDS, retry=_retry())
            return data
        except DataCorruption:
            if not tries_left:
                raise
    raise AssertionError("unreachable")


def _raise_output_error(error: Exception, doing: str, bucket: str) -> NoReturn:
    """Say in the user's terms what Google's client said in its own."""
    from google.api_core import exceptions as api
    from google.auth.exceptions import GoogleAuthError, TransportError
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

    if isinstance(error, api.NotFound):
        raise OutputRefused(f'cannot {doing}: bucket "{bucket}" does not exist or cannot be seen') from error
    if isinstance(error, api.Forbidden | api.Unauthorized):
        raise OutputRefused(
            f"cannot {doing}: these Google credentials may not; they need the role Storage Object User "
            f'(roles/storage.objectUser) on bucket "{bucket}": {error.message}'
        ) from error
    if isinstance(error, GoogleAuthError) and not isinstance(error, TransportError):
        raise OutputRefused(f"cannot {doing}: {_LOG_IN}: {error}") from error
    if isinstance(error, api.ClientError) and not isinstance(error, api.TooManyRequests):
        raise OutputError(f"cannot {doing}: {error.message}") from error
    cause = getattr(error, "cause", None) or error  # of a RetryError: what the last try met
    if isinstance(cause, DataCorruption):  # which says so in ten lines
        cause = "the bytes that came do not match their checksum"
    if isinstance(cause, InvalidResponse):
        cause = f"HTTP status {cause.response.status_code}"
    server = _emulator() or "Google Cloud Storage"
    raise OutputUnavailable(f"cannot {doing}: no good answer from {server}: {cause}") from error


def _check_metadata(where: str, metadata: Mapping[str, str]) -> None:
    size = sum(len(key.encode()) + len(value.encode()) for key, value in metadata.items())
    if size > MAX_METADATA_BYTES:
        raise OutputError(f"cannot write {where}: {size} bytes of metadata, and Google takes {MAX_METADATA_BYTES}")


def _is_intact(blob: Any) -> bool | None:
    """Whether the object's bytes are those that were put, None where nobody wrote down what those were."""
    put = (blob.metadata or {}).get(CHECKSUM_KEY)
    return None if put is None else bool(put == blob.crc32c)


def _crc32c(content: Content) -> str:
    """The checksum as Google writes it: big-endian, in base64."""
    import google_crc32c

    checksum = google_crc32c.Checksum()
    with content.open() as file:
        while piece := file.read(_READ_BYTES):
            checksum.update(piece)
    return base64.b64encode(checksum.digest()).decode()


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
        raise OutputRefused(f"cannot use Google Cloud Storage: {_LOG_IN}: {error}") from error
    for scheme in ("https://", "http://"):
        client._http.mount(scheme, HTTPAdapter(pool_maxsize=connections))
    return client


def open_bucket(rest: str, connections: int) -> Bucket:
    """The bucket and prefix that `gs://REST` names. Raises `OutputUrlError`, and `OutputError` without credentials."""
    bucket, _, prefix = rest.partition("/")
    if not _BUCKET.fullmatch(bucket):
        problem = f"a bucket cannot be called {bucket!r}" if bucket else "the bucket is missing"
        raise OutputUrlError(f"output 'gs://{rest}': {problem}; expected gs://bucket/prefix")
    prefix = prefix.strip("/")
    return Bucket(_client(connections), bucket, f"{check_name(prefix)}/" if prefix else "")
