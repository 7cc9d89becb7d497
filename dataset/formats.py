"""The formats of a dataset: how the samples of one shard become objects. A new one is a function and a row."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from promptmill.dataset.parallel import mapped
from promptmill.dataset.samples import Sample, sample_record
from promptmill.dataset.tables import write_beside_images, write_with_images
from promptmill.dataset.tar import Member, write_tar
from promptmill.producer.job import canonical_json
from promptmill.producer.outputs.output import Output


@dataclass(frozen=True)
class Written:
    """An object that packing wrote."""

    name: str
    bytes: int
    sha256: str


Write = Callable[["HashedFile", str, Iterator[Sample], Output], tuple[int, list[Written]]]
"""Write a shard's file, which will have that name in the output; return how many samples there were, and what else
of the shard was put into the output, before the file: its images, where they lie beside it."""


_BEING_HASHED = 4
"""Pieces that wait for their digest: they are in memory."""


class HashedFile:
    """A file that is written from its beginning to its end, with a digest of all that was written.

    A thread of its own hashes what is written meanwhile: the digest is as long in the making as the copy.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)
        self._sha256 = hashlib.sha256()
        self._hasher = ThreadPoolExecutor(1, "digest")
        self._hashing: deque[Future[None]] = deque()
        self._size = 0

    def write(self, data: bytes) -> int:
        """Write bytes; of a buffer that its owner may use again, a copy is hashed."""
        data = bytes(data)
        self._hash_all_but(_BEING_HASHED - 1)
        self._hashing.append(self._hasher.submit(self._sha256.update, data))
        self._size += len(data)
        rest = memoryview(data)
        while len(rest):
            rest = rest[self._file.write(rest) :]
        return len(data)

    def _hash_all_but(self, pieces: int) -> None:
        while len(self._hashing) > pieces:
            self._hashing.popleft().result()

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        """Nothing is held back."""

    @property
    def sha256(self) -> str:
        self._hash_all_but(0)
        return self._sha256.hexdigest()

    @property
    def closed(self) -> bool:
        return self._file.closed

    def close(self) -> None:
        self._hasher.shutdown()
        self._file.close()


@dataclass(frozen=True)
class Format:
    """`name` makes a shard's name of its split, '' where there is one alone, and its number."""

    name: Callable[[str, int], str]
    content_type: str
    write: Write
    loader: str
    """What `datasets.load_dataset` calls it."""
    pattern: Callable[[str], str]
    """The files of a split, '' where there is one alone."""
    of_shard: Callable[[str], str] = str
    """The files of one shard, by its name."""


def _write_webdataset(
    file: HashedFile, name: str, samples: Iterator[Sample], output: Output
) -> tuple[int, list[Written]]:
    count = 0

    def members() -> Iterator[Member]:
        nonlocal count
        for sample in samples:
            count += 1
            yield f"{sample.key}.json", canonical_json(sample_record(sample.row)).encode()
            yield f"{sample.key}.{sample.extension}", sample.data
            yield f"{sample.key}.txt", sample.row["prompt"].encode()

    write_tar(file.write, members())
    return count, []


def _write_parquet(file: HashedFile, name: str, samples: Iterator[Sample], output: Output) -> tuple[int, list[Written]]:
    return write_with_images(file, samples), []


def _write_imagefolder(
    file: HashedFile, name: str, samples: Iterator[Sample], output: Output
) -> tuple[int, list[Written]]:
    folder = name.rpartition("/")[0]

    def put(sample: Sample) -> tuple[Sample, Written]:
        image = f"{folder}/{sample.key}.{sample.extension}"
        output.put_once(image, sample.data, content_type=sample.content_type)
        written = Written(image, len(sample.data), hashlib.sha256(sample.data).hexdigest())
        return replace(sample, data=b""), written

    done = list(mapped(put, samples))
    write_beside_images(file, (sample for sample, _ in done))
    return len(done), [written for _, written in done]


def _file(extension: str) -> Callable[[str, int], str]:
    def name(split: str, number: int) -> str:
        return f"data/{split}{'-' if split else ''}{number:05d}.{extension}"

    return name


def _folder(split: str, number: int) -> str:
    return f"data/{split}{'/' if split else ''}{number:05d}/metadata.parquet"


def _files(extension: str) -> Callable[[str], str]:
    return lambda split: f"data/{split}{'-' if split else ''}*.{extension}"


def _folders(split: str) -> str:
    return f"data/{split}{'/' if split else ''}[0-9]*/*"


def _beside(name: str) -> str:
    return f"{name.rpartition('/')[0]}/*"


PARQUET = "application/vnd.apache.parquet"

FORMATS = {
    "webdataset": Format(_file("tar"), "application/x-tar", _write_webdataset, "webdataset", _files("tar")),
    "parquet": Format(_file("parquet"), PARQUET, _write_parquet, "parquet", _files("parquet")),
    "imagefolder": Format(_folder, PARQUET, _write_imagefolder, "imagefolder", _folders, _beside),
}
