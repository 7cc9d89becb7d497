"""Where shards begin and end: by the manifest alone, so that everybody who asks gets the same answer."""

from collections.abc import Iterator
from dataclasses import dataclass

from promptmill.dataset.options import ONLY_SPLIT, SAMPLE_BYTES, PackOptions, split_of
from promptmill.dataset.rows import Rows


@dataclass(frozen=True)
class Piece:
    """What one shard holds: the indexes of its split from `first` on, before `end`. `number` is that in its split."""

    number: int
    split: str
    first: int
    end: int


@dataclass
class _Open:
    """The piece of a split that is being filled."""

    number: int = 0
    first: int | None = None
    end: int = 0
    indexes: int = 0
    bytes: int = 0


def pieces(rows: Rows, options: PackOptions) -> Iterator[Piece]:
    """The run's pieces, each split's in order. All splits together have each index once."""
    if not options.splits and options.shard_bytes is None:
        for number, first in enumerate(range(0, len(rows), options.shard_size)):
            yield Piece(number, ONLY_SPLIT, first, min(first + options.shard_size, len(rows)))
        return
    filling = {name: _Open() for name in options.splits or (ONLY_SPLIT,)}
    for row in rows.between(0, len(rows), ["index", "prompt", "bytes"]):
        name = split_of(row["prompt"], options.splits)
        piece, size = filling[name], SAMPLE_BYTES + row["bytes"] if row["bytes"] else 0
        if piece.indexes and _is_full(piece, size, options):
            yield _closed(name, piece)
            piece = filling[name] = _Open(piece.number + 1)
        piece.first = row["index"] if piece.first is None else piece.first
        piece.end, piece.indexes, piece.bytes = row["index"] + 1, piece.indexes + 1, piece.bytes + size
    yield from (_closed(name, piece) for name, piece in filling.items() if piece.indexes)


def _is_full(piece: _Open, size: int, options: PackOptions) -> bool:
    if options.shard_bytes is None:
        return piece.indexes >= options.shard_size
    return piece.bytes + size > options.shard_bytes


def _closed(name: str, piece: _Open) -> Piece:
    assert piece.first is not None
    return Piece(piece.number, name, piece.first, piece.end)
