"""A run's images as shards: each of a fixed range of the run's indexes, and of one split.

A sample of WebDataset is `INDEX.png`, `INDEX.json` (the job, its labels) and `INDEX.txt` (the prompt); INDEX has nine
digits. What failed or is missing leaves a hole, which `data/shards.json` names. A shard is the same bytes whenever it
is built of the same images.

Once a shard is in the output, `packing/SHARD.json` says what it was made of and how it came out: who packs again leaves
it as it is. To have shards built anew, take them, and `data/shards.json`, from their names, and call `finish`.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from promptmill.dataset.formats import FORMATS, HashedFile, Written
from promptmill.dataset.options import PackOptions
from promptmill.dataset.pieces import Piece, pieces
from promptmill.dataset.rows import Rows
from promptmill.dataset.samples import COLUMNS, read_samples, rows_of
from promptmill.dataset.transcoder import Transcoder
from promptmill.producer.job import canonical_json
from promptmill.producer.outputs.output import ObjectNotFound, Output, OutputConflict

SHARDS_JSON = "data/shards.json"

RECORD = "packing/manifest.json"
"""The manifest's digest and counts, once it is there: who packs again need not look at every image again."""


@dataclass(frozen=True)
class Shard:
    """One object: the range of indexes that it stands for, its samples, and the indexes without one."""

    name: str
    split: str
    first: int
    end: int
    samples: int
    bytes: int
    sha256: str
    made_of: str
    """A digest of all that decides its bytes: options, range, and each row of the manifest with its image's digest."""
    holes: tuple[int, ...]
    images: tuple[Written, ...] = ()
    """Where they lie beside it."""


def pack(output: Output, rows: Rows, scratch: Path, options: PackOptions, *, renew: bool = False) -> Iterator[Shard]:
    """Write the shards that the output lacks, then `shards.json`; yield each shard once it is there.

    `rows` are those of the manifest. `renew`: shards that were made of an earlier one are replaced. Raises
    OutputConflict where a dataset of other options, or of other images, lies there; ImageChangedError, OutputError.
    """
    check_options(output, options)
    shards = []
    for piece in pieces(rows, options):
        shard = put_shard(output, rows, scratch, options, piece, renew=renew)
        shards.append(shard)
        yield shard
    index = _index(options, shards)
    output.put_once(SHARDS_JSON, index, content_type="application/json", broken=lambda existing: renew)


def check_options(output: Output, options: PackOptions) -> None:
    """Raise OutputConflict where the output is packed with other options already."""
    try:
        there = json.loads(output.get(SHARDS_JSON))["options"]
    except (ObjectNotFound, ValueError, KeyError, TypeError):
        return  # what is damaged, or older, is compared byte by byte
    other = [_said(name, there.get(name)) for name, value in options.to_json().items() if there.get(name) != value]
    if other:
        raise OutputConflict(f"{output.url} is packed already, with {', '.join(other)}; it is left as it is")


def _said(name: str, value: Any) -> str:
    if name == "splits":
        return f"--split {','.join(f'{split}={share:g}' for split, share in value)}" if value else "no splits"
    return f"--{name.replace('_', '-')} {value}" if value is not None else f"no --{name.replace('_', '-')}"


def put_shard(
    output: Output, rows: Rows, scratch: Path, options: PackOptions, piece: Piece, *, renew: bool = False
) -> Shard:
    """The piece's shard, which is in the output then. Raises as `pack` does."""
    made_of, holes = composition(rows, options, piece)
    kind = FORMATS[options.format]
    name = kind.name(piece.split if options.splits else "", piece.number)
    file = scratch / record_name(name).rpartition("/")[2]
    known = _known(output, name, made_of)
    if known is not None:
        return known
    try:
        found = read_samples(output, rows_of(rows, piece, options), Transcoder(options))
        with closing(HashedFile(file)) as hashed:
            samples, images = kind.write(hashed, name, found, output)
        written = (samples, hashed.tell(), hashed.sha256, made_of, holes, tuple(images))
        shard = Shard(name, piece.split, piece.first, piece.end, *written)
        output.put_file(name, file, content_type=kind.content_type, broken=lambda existing: renew, take=True)
    finally:
        file.unlink(missing_ok=True)
    output.put_once(record_name(name), _record(asdict(shard)), broken=lambda existing: True)
    return shard


def composition(rows: Rows, options: PackOptions, piece: Piece) -> tuple[str, tuple[int, ...]]:
    """A digest of all that decides a shard's bytes, and the indexes without an image."""
    digest, holes = hashlib.sha256(canonical_json([options.to_json(), asdict(piece)]).encode()), []
    for row in rows_of(rows, piece, options):
        if row["state"] != "done":
            holes.append(row["index"])
        else:
            digest.update(canonical_json([row["sha256"], *(row[name] for name in COLUMNS)]).encode())
    return digest.hexdigest(), tuple(holes)


def _known(output: Output, name: str, made_of: str) -> Shard | None:
    """The shard that is there already, made of just this."""
    try:
        said = json.loads(output.get(record_name(name)))
        images = tuple(Written(**image) for image in said["images"])
        shard = Shard(**{**said, "holes": tuple(said["holes"]), "images": images})
    except (ObjectNotFound, ValueError, KeyError, TypeError):
        return None
    there = output.exists(shard.name) and all(output.exists(image.name) for image in shard.images)
    return shard if shard.made_of == made_of and there else None


def written_objects(shard: Mapping[str, Any]) -> Iterator[Written]:
    """The objects of one row of `data/shards.json`: the shard, its record, and what lies beside it."""
    yield Written(shard["name"], shard["bytes"], shard["sha256"])
    yield from (Written(**image) for image in shard["images"])
    record = _record(shard)
    yield Written(record_name(shard["name"]), len(record), hashlib.sha256(record).hexdigest())


def total_bytes(shard: Shard) -> int:
    """With the images beside it."""
    return shard.bytes + sum(image.bytes for image in shard.images)


def record_name(shard: str) -> str:
    """`data/00000.tar` -> `packing/00000.tar.json`."""
    return f"packing/{shard.partition('/')[2].replace('/', '-')}.json"


def _record(shard: Mapping[str, Any]) -> bytes:
    """What `packing/SHARD.json` holds."""
    return f"{canonical_json(shard)}\n".encode()


def _index(options: PackOptions, shards: Iterable[Shard]) -> bytes:
    splits: dict[str, dict[str, int]] = {}
    for shard in shards:
        counts = splits.setdefault(shard.split, {"shards": 0, "samples": 0, "bytes": 0, "holes": 0})
        for name, number in (("shards", 1), ("samples", shard.samples), ("bytes", total_bytes(shard))):
            counts[name] += number
        counts["holes"] += len(shard.holes)
    index: dict[str, Any] = {
        "options": options.to_json(),
        "splits": splits,
        "shards": [asdict(shard) for shard in shards],
    }
    return f"{canonical_json(index)}\n".encode()
