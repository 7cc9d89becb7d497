"""Where a run lives: a folder or a bucket, written so that nothing whole is ever overwritten.

Both sides go through it. The producer puts the plan here, the workers put the images, and what is here
decides what is still missing. A write can be repeated by anybody at any time: `put_once` creates the object,
or finds that it is there already and adopts it, or refuses.

    OutputError              anything that went wrong with an output
        OutputUrlError       a URL or a name that no output can have: the caller's mistake
        OutputConflict       the name is taken by something that is not ours
        ObjectNotFound       there is nothing of that name
        OutputRefused        nothing can be read or written there as things are: no permission, read-only, no such
                             bucket. No object's fault: it needs somebody to mend the storage, or this host
        OutputUnavailable    the storage did not answer, or was full: the same call may work later

This is the contract; folder.py and gcs.py keep it, open.py opens them. A new kind of
storage is a class with `Output`'s methods and a row in its `SCHEMES`.
"""

from __future__ import annotations

import enum
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

from promptmill.producer.errors import PromptmillError

# Path components that begin with this are ours and no object's: temporary files and locks.
RESERVED = ".promptmill-"

SCANNED = ("job_id", "crc32c")
"""The metadata that `scan` fetches, of a bucket's objects; with all of it a listing would be ten times as long."""


class OutputError(PromptmillError):
    """Something went wrong with an output."""


class OutputUrlError(OutputError):
    """A URL or a name that no output can have."""


class OutputConflict(OutputError):
    """The name is taken by an object that is not ours."""


class ObjectNotFound(OutputError):
    """There is no object of that name."""


class OutputRefused(OutputError):
    """The storage lets this host do nothing: permissions, a read-only file system, no such bucket, no credentials."""


class OutputUnavailable(OutputError):
    """The storage did not answer, or had no room. The same call may work later."""


class Put(enum.Enum):
    """What `put_once` did: wrote the object, found that it was there already, or put it where a broken one was."""

    CREATED = "created"
    ADOPTED = "adopted"
    REPLACED = "replaced"


@dataclass(frozen=True, slots=True)
class Listed:
    """An object of a listing. `metadata` is a bucket's; `intact`: its bytes are those that were put, None: unknown."""

    name: str
    size: int
    metadata: Mapping[str, str] = field(default_factory=dict)
    intact: bool | None = None
    crc32c: str | None = None
    """The bucket's own checksum of what is there, big-endian in base64; a folder has none."""
    changed: int | None = field(default=None, compare=False)
    """When a folder's file was written, nanoseconds since the epoch."""


@dataclass(frozen=True)
class Existing:
    """The object that `put_once` found in its place. A folder keeps no metadata: look inside the file."""

    size: int
    metadata: Mapping[str, str]
    reader: Callable[[], bytes]
    intact: bool | None = None
    """As in Listed."""

    def read(self) -> bytes:
        """The object's bytes, fetched when asked for."""
        return self.reader()


@dataclass(frozen=True)
class Content:
    """What is to be written: bytes, or a file of this machine that may be larger than its memory."""

    size: int
    open: Callable[[], BinaryIO]
    metadata: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_bytes(cls, data: bytes, metadata: Mapping[str, str] | None = None) -> Content:
        return cls(len(data), lambda: io.BytesIO(data), metadata or {})

    @classmethod
    def of_file(cls, path: Path) -> Content:
        """Raises `OutputError` for a file that cannot be read."""
        try:
            return cls(path.stat().st_size, lambda: path.open("rb"))
        except OSError as error:
            raise OutputError(f"cannot read {path}: {error.strerror}") from error


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
        broken: Callable[[Existing], bool] | None = None,
    ) -> Put:
        """Create the object, or adopt it when it is there already: the same bytes, or `ours` says so.

        `broken` is asked about what is neither: where it says so, the object is replaced, in one step.
        `metadata` is kept by a bucket, at most `MAX_METADATA_BYTES` of it; by a folder what is short, as extended
        attributes, where the file system has them: nothing may depend on it.

        Raises:
            OutputConflict: the name is taken by something else. It is left as it is.
            OutputUnavailable: the storage did not answer, or is full.
            OutputRefused: the storage refuses this host, or everybody.
            OutputError: the storage refuses this object.
        """

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
        """`put_once` with what is in a file of this machine, of which only a piece is in memory at a time.

        `take`: nobody writes into the file any more, so a folder may give it its name instead of copying it.
        """

    def move(self, name: str, to: str) -> None:
        """Give the object another name, which must be free; its bytes and metadata stay.

        A bucket copies and then deletes: a process that dies in between leaves it under both names, and the same call
        again goes on from there.

        Raises:
            ObjectNotFound: there is no object of that name, or another one by now: it stays.
            OutputConflict: the new name is taken by something else. Both are left as they are.
        """

    def get(self, name: str) -> bytes:
        """The object's bytes. Raises `ObjectNotFound`."""

    def read(self, name: str, start: int, length: int) -> bytes:
        """So many bytes from `start` on, fewer at the object's end. Raises `ObjectNotFound`."""

    def metadata(self, name: str) -> Mapping[str, str]:
        """What the object was written with, as far as it was kept. Raises `ObjectNotFound`."""

    def exists(self, name: str) -> bool:
        """Whether there is an object of that name."""

    def list(self, prefix: str = "") -> Iterator[str]:
        """The names that begin with `prefix`, one after the other, in no promised order."""

    def scan(self, prefix: str = "") -> Iterator[Listed]:
        """The same with sizes, and of the metadata what SCANNED names."""

    def children(self, prefix: str = "") -> Iterator[str]:
        """The names of the outputs inside this one that hold anything and begin with `prefix`."""

    def child(self, name: str) -> Output:
        """The output inside this one: `OUTPUT` -> `OUTPUT/RUN`."""

    def reach(self) -> None:
        """Find out within seconds whether the storage answers, before anything is looked for there. Creates nothing.

        Raises:
            OutputError: it does not.
        """

    def check(self) -> None:
        """Find out now, not at the first image, that the place can be used. Creates nothing.

        Raises:
            OutputError: it cannot; the text says what to do.
        """


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


def judge(
    where: str,
    size: int,
    there: Existing,
    same: bool,
    ours: Callable[[Existing], bool] | None,
    broken: Callable[[Existing], bool] | None,
) -> Put:
    """What `put_once` does about a taken name: ADOPTED, or REPLACED for its caller to do. Raises `OutputConflict`."""
    if same or (ours is not None and ours(there)):
        return Put.ADOPTED
    if broken is not None and broken(there):
        return Put.REPLACED
    raise OutputConflict(
        f"{where} is taken by something else ({there.size} bytes there, {size} here); "
        "it is left as it is: choose another run name or output"
    )
