"""The formats of a dataset: how the samples of one shard become an object. A new one is a function and a row."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from promptmill.dataset.samples import Sample, sample_record
from promptmill.dataset.tar import Member, write_tar
from promptmill.producer.job import canonical_json
from promptmill.producer.outputs.output import Output

Write = Callable[[Path, str, Iterator[Sample], Output], int]
"""Write a shard's file, which will have that name in the output, of samples; return how many there were.

What lies beside the file in its dataset is put into the output on the way, before the file.
"""


@dataclass(frozen=True)
class Format:
    """`name` makes an object's name of a shard's stem; `loader` is that of `datasets.load_dataset`."""

    name: Callable[[str], str]
    content_type: str
    write: Write
    loader: str


def _write_webdataset(file: Path, name: str, samples: Iterator[Sample], output: Output) -> int:
    count = 0

    def members() -> Iterator[Member]:
        nonlocal count
        for count, sample in enumerate(samples, 1):  # noqa: B007
            yield f"{sample.key}.json", canonical_json(sample_record(sample.row)).encode()
            yield f"{sample.key}.{sample.extension}", sample.data
            yield f"{sample.key}.txt", sample.row["prompt"].encode()

    with file.open("wb") as tar:
        write_tar(tar, members())
    return count


FORMATS = {
    "webdataset": Format(lambda stem: f"data/{stem}.tar", "application/x-tar", _write_webdataset, "webdataset"),
}
