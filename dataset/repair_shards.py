"""Shards made anew as `data/shards.json` says that they were made."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from promptmill.dataset.aside import Aside
from promptmill.dataset.options import PackOptions
from promptmill.dataset.pack import SHARDS_JSON, put_shard, record_name, written_objects
from promptmill.dataset.pieces import pieces
from promptmill.dataset.rows import Rows
from promptmill.dataset.samples import ImageChangedError
from promptmill.dataset.seal import sha256_of
from promptmill.dataset.steps import Step
from promptmill.producer.job import canonical_json
from promptmill.producer.outputs.output import ObjectNotFound, Output

ShardRow = Mapping[str, Any]
"""A row of `data/shards.json`."""


def shard_rows(output: Output) -> list[ShardRow]:
    """The rows of `data/shards.json`, none where it cannot be read."""
    try:
        rows = json.loads(output.get(SHARDS_JSON))["shards"]
        return [row for row in rows if list(written_objects(row))]
    except (ObjectNotFound, ValueError, KeyError, TypeError, AttributeError):
        return []


def options_of(output: Output) -> PackOptions | None:
    """How the run is packed, None where nothing says so."""
    try:
        return PackOptions.from_json(json.loads(output.get(SHARDS_JSON))["options"])
    except (ObjectNotFound, ValueError, KeyError, TypeError):
        return None


def broken_shards(output: Output) -> list[tuple[ShardRow, list[str]]]:
    """Rows of shards with the names of their objects that are gone, or have other bytes."""
    found = []
    for row in shard_rows(output):
        names = [one.name for one in written_objects(row) if sha256_of(output, one.name) != one.sha256]
        if names:
            found.append((row, names))
    return found


def mend_shard(
    output: Output, rows: Rows, row: ShardRow, names: list[str], aside: Aside, scratch: Path
) -> Iterator[Step]:
    """Put back a shard's objects of these names, of the manifest's rows. Raises OutputError."""
    moved = {name: aside.take(name) for name in names}
    record = record_name(row["name"])
    if names == [record]:
        output.put_once(record, f"{canonical_json(row)}\n".encode())
    else:
        options = options_of(output) or PackOptions()
        piece = next((one for one in pieces(rows, options) if _is_of(one, row)), None)
        try:
            if piece is not None:
                put_shard(output, rows, scratch, options, piece)
        except ImageChangedError as error:
            yield Step(row["name"], "left", str(error))
            return
    expected = {one.name: one.sha256 for one in written_objects(row)}
    for name, to in moved.items():
        there = f"what was there is now {to}" if to else ""
        if sha256_of(output, name) == expected[name]:
            yield Step(name, "rebuilt", there)
        else:
            yield Step(name, "left", "comes out with other bytes than before (other versions of libraries)")


def _is_of(piece: Any, row: ShardRow) -> bool:
    known = asdict(piece)
    return all(known[name] == row[name] for name in ("split", "first", "end"))
