"""Where prompt files are, and their bytes: folders, standard input, buckets, packed or not. Nothing is read whole."""

import contextlib
import fnmatch
import glob
import gzip
import io
import stat
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import zstandard

from promptmill.producer.errors import PromptFileError
from promptmill.producer.outputs.output import OutputError
from promptmill.producer.prompts.unzstd import unzstd

STDIN = "-"
BUCKET = "gs://"
HUB = "hf://"

_MAGIC = "*?["
_CONNECTIONS = 4
_BUFFER = 1 << 18  # bytes

READ_ERRORS = (OSError, EOFError, zlib.error, zstandard.ZstdError, OutputError)


@dataclass(frozen=True)
class Source:
    """One prompt file.

    `suffix` is its format's, without that of `pack` ('', '.gz' or '.zst'); None is for a stream, whose beginning tells.
    """

    name: str
    suffix: str | None
    pack: str
    raw: Callable[[], AbstractContextManager[BinaryIO]]

    @property
    def is_dataset(self) -> bool:
        return self.suffix == HUB

    @contextlib.contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Its bytes, unpacked. Raises READ_ERRORS, then and while they are read."""
        with self.raw() as file:
            yield _UNPACK[self.pack](file)


def find_sources(names: Sequence[str]) -> Iterator[Source]:
    """The files that names and patterns mean, those of a pattern in order. Raises PromptFileError."""
    for name in names:
        if name == STDIN:
            yield Source("stdin", None, "", lambda: contextlib.nullcontext(cast("BinaryIO", sys.stdin.buffer)))
        elif name.startswith(HUB):
            yield Source(name, HUB, "", lambda: contextlib.nullcontext(cast("BinaryIO", io.BytesIO())))
        elif name.startswith(BUCKET):
            yield from _in_bucket(name)
        else:
            yield from _in_folder(name)


def format_of(name: str) -> tuple[str, str]:
    """A name's suffix, in small letters, and that of its packing: `.csv` and `.gz`."""
    path = Path(name.lower())
    return (Path(path.stem).suffix, path.suffix) if path.suffix in _UNPACK else (path.suffix, "")


def read_error(name: str, error: Exception) -> PromptFileError:
    """What reading a file may raise, as a sentence."""
    if isinstance(error, OSError) and error.strerror:
        return PromptFileError(name, 0, None, f"cannot be read: {error.strerror}")
    if isinstance(error, OutputError):
        return PromptFileError(name, 0, None, f"cannot be read: {error}")
    return PromptFileError(name, 0, None, f"cannot be read to its end: {one_line(error)}")


def one_line(error: Exception) -> str:
    """What a library says, the first line of it."""
    text = (str(error) or type(error).__name__).split("\n")[0]
    return "".join(char if char.isprintable() else "?" for char in text)[:300]


def _in_folder(name: str) -> Iterator[Source]:
    problem = _why_no_file(name)
    if problem is None:
        yield _local(name)
        return
    if not any(char in name for char in _MAGIC) or "\0" in name:
        raise PromptFileError(name, 0, None, problem)
    # `glob` and not `Path.glob`, which takes no absolute pattern.
    found = sorted(file for file in glob.glob(name, recursive=True) if not Path(file).is_dir())  # noqa: PTH207
    if not found:
        raise PromptFileError(name, 0, None, "no file has such a name")
    for file in found:
        yield _local(file)


def _local(name: str) -> Source:
    path = Path(name)
    suffix, pack = format_of(path.name)
    is_stream = not suffix and not path.is_file()  # a pipe, such as the shell's <(...)
    return Source(name, None if is_stream else suffix, pack, lambda: path.open("rb", buffering=_BUFFER))


def _why_no_file(name: str) -> str | None:
    try:
        is_folder = stat.S_ISDIR(Path(name).stat().st_mode)
    except FileNotFoundError:
        return "no such file"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except ValueError:
        return "cannot be read: its name has a NUL"
    return f"is a folder, not a prompt file; {name.rstrip('/')}/*.txt are those in it" if is_folder else None


def _in_bucket(url: str) -> Iterator[Source]:
    from promptmill.producer.outputs.gcs import open_bucket

    where, _, name = url.removeprefix(BUCKET).partition("/")
    if not where or not name:
        raise PromptFileError(url, 0, None, "expected gs://bucket/object")
    try:
        bucket = open_bucket(where, _CONNECTIONS)
        found = [name] if bucket.exists(name) else []
        if not found and any(char in name for char in _MAGIC):
            pattern = name.split("/")
            start = name[: min(name.index(char) for char in _MAGIC if char in name)]
            found = sorted(one for one in bucket.list(start) if matches(one.split("/"), pattern))
    except OutputError as error:
        raise PromptFileError(url, 0, None, str(error)) from error
    if not found:
        raise PromptFileError(url, 0, None, "no such object")
    for one in found:
        yield Source(f"{BUCKET}{where}/{one}", *format_of(one), lambda one=one: bucket.open(one))  # type: ignore[misc]


def matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether an object's name matches a pattern as a file's would: `*` stays in its folder, `**` does not."""
    if not pattern or not parts:
        return not pattern and not parts
    if pattern[0] == "**":
        return matches(parts, pattern[1:]) or matches(parts[1:], pattern)
    return fnmatch.fnmatchcase(parts[0], pattern[0]) and matches(parts[1:], pattern[1:])


def _gunzip(file: BinaryIO) -> BinaryIO:
    return cast("BinaryIO", io.BufferedReader(gzip.GzipFile(fileobj=file), _BUFFER))


_UNPACK: dict[str, Callable[[BinaryIO], BinaryIO]] = {"": lambda file: file, ".gz": _gunzip, ".zst": unzstd}
