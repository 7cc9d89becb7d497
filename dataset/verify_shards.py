"""The list of shards against the manifest: each shard is made of just the rows that it should be."""

from collections.abc import Iterator

from promptmill.dataset.findings import Finding
from promptmill.dataset.pack import SHARDS_JSON, composition
from promptmill.dataset.pieces import pieces
from promptmill.dataset.repair_shards import options_of, shard_rows
from promptmill.dataset.subject import Subject


def check_shard_rows(subject: Subject) -> Iterator[Finding]:
    """What `data/shards.json` says otherwise than the manifest does. Raises OutputError."""
    manifest, listed = subject.manifest, shard_rows(subject.output)
    options = options_of(subject.output)
    if manifest is None or options is None or not listed:
        return
    left = {(row["split"], row["first"], row["end"]): row for row in listed}
    rows = manifest.indexed()
    for piece in pieces(rows, options):
        row = left.pop((piece.split, piece.first, piece.end), None)
        if row is None:
            yield Finding(SHARDS_JSON, f"has no shard of indexes {piece.first} to {piece.end - 1} ({piece.split})")
        else:
            digest, holes = composition(rows, options, piece)
            if (digest, list(holes)) != (row["made_of"], list(row["holes"])):
                yield Finding(SHARDS_JSON, f"{row['name']} is not made of the rows of the manifest")
    yield from (Finding(SHARDS_JSON, f"{row['name']} is no shard of the manifest") for row in left.values())
