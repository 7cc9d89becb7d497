"""What of a run is worth keeping: measures, duplicates and the user's own scores, as a table and as two lists.

    curation.parquet    a row per index: id, path, brightness, contrast, sharpness, bytes, the first index of the same
                        pixels and of those that look alike, scores, and why it is on the second list
    keep.txt            the indexes to keep, one per line
    drop.jsonl          the others, each with its reasons
    prompts.txt         prompts of which no index has an image

Nothing of the run is changed. Pixels are read once; of each image about a kilobyte stays in memory.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from promptmill.dataset.duplicates import Groups, alike, same
from promptmill.dataset.images import ImageError, look_at
from promptmill.dataset.manifest import Row
from promptmill.dataset.measures import Measures, measure
from promptmill.dataset.parallel import mapped
from promptmill.producer.errors import PromptmillError
from promptmill.producer.image_formats import open_image
from promptmill.producer.job import canonical_json
from promptmill.producer.outputs.output import ObjectNotFound, Output
from promptmill.producer.words import count

BATCH = 32
"""Images that a score's function is given at once."""

NEAR = 3
"""Of 64 bits, so many may differ in images that look alike."""

Score = Callable[[Sequence[Image.Image], Sequence[Row]], Sequence[Any]]
"""A function of images (RGB) and their rows of the manifest: of each image a number, or numbers by name."""

MEASURED = ("brightness", "contrast", "sharpness", "bytes")


class CurateError(PromptmillError):
    """A filter or a score that cannot be; the text says which."""


@dataclass(frozen=True)
class Filters:
    """Bounds by column; `near` bits may differ in images that look alike, None: those are kept."""

    least: Mapping[str, float] = field(default_factory=dict)
    most: Mapping[str, float] = field(default_factory=dict)
    near: int | None = NEAR
    duplicates: bool = False
    """Whether images of the same pixels are kept."""


@dataclass
class _Looked:
    """A row, and what was found of its image."""

    row: Row
    measures: Measures | None = None
    reason: str | None = None
    image: Image.Image | None = None
    scores: dict[str, float] = field(default_factory=dict)

    def columns(self) -> Row:
        found = self.measures
        told = {} if found is None else {name: getattr(found, name) for name in MEASURED[:3]}
        kept = {name: self.row.get(name) for name in ("index", "id", "path", "bytes")}
        return {**kept, **dict.fromkeys(MEASURED[:3]), **told, **self.scores}


def curate(
    output: Output, rows: Iterable[Row], to: Path, filters: Filters, scores: Mapping[str, Score]
) -> dict[str, int]:
    """Write the table and the lists into a folder; return how often each reason was given, and `kept`.

    Raises CurateError, OutputError.
    """
    looked: list[tuple[Row, str | None]] = []
    pixels: list[tuple[int, object]] = []
    hashes: list[tuple[int, int]] = []
    prompts: dict[str, bool] = {}
    for one in _scored(_looks(output, rows), scores):
        index = one.row["index"]
        prompts[one.row["prompt"]] = prompts.get(one.row["prompt"], False) or one.measures is not None
        looked.append((one.columns(), one.reason))
        if one.measures is not None and one.reason is None:
            pixels.append((index, one.measures.pixels))
            hashes.append((index, one.measures.dhash))
    groups = same(pixels), alike(hashes, filters.near or 0)
    to.mkdir(parents=True, exist_ok=True)
    (to / "prompts.txt").write_text("".join(f"{prompt}\n" for prompt, has in prompts.items() if not has))
    return _write(looked, groups, to, filters)


def _looks(output: Output, rows: Iterable[Row]) -> Iterator[_Looked]:
    return mapped(lambda row: _look(output, row), rows)


def _look(output: Output, row: Row) -> _Looked:
    if not row.get("path"):
        return _Looked(row, reason="broken" if row["state"] == "broken" else "no image")
    try:
        data = output.get(row["path"])
        look_at(data, decode=True)
        with open_image(data, Image.open) as opened:
            image = opened.convert("RGB")
    except ObjectNotFound:
        return _Looked(row, reason="no image")
    except ImageError:
        return _Looked(row, reason="broken")
    found = measure(image)
    return _Looked(row, found, "plain" if found.plain else None, image)


def _scored(looked: Iterator[_Looked], scores: Mapping[str, Score]) -> Iterator[_Looked]:
    while batch := list(islice(looked, BATCH)):
        whole = [one for one in batch if one.image is not None]
        for name, function in scores.items() if whole else ():
            found = list(function([one.image for one in whole if one.image], [one.row for one in whole]))
            if len(found) != len(whole):
                raise CurateError(f"--score {name}: gave {count(len(found), 'score')} for {count(len(whole), 'image')}")
            for one, score in zip(whole, found, strict=True):
                one.scores.update(_numbers(name, score))
        for one in batch:
            one.image = None
            yield one


def _numbers(name: str, score: Any) -> dict[str, float]:
    named = score if isinstance(score, Mapping) else {name.rpartition(":")[2]: score}
    try:
        return {str(key): float(value) for key, value in named.items()}
    except (TypeError, ValueError) as error:
        raise CurateError(f"--score {name}: gave {score!r}, expected a number, or numbers by name") from error


def _write(
    looked: Sequence[tuple[Row, str | None]], groups: tuple[Groups, Groups], to: Path, filters: Filters
) -> dict[str, int]:
    counts: dict[str, int] = {"kept": 0}
    columns = list(dict.fromkeys(name for row, _ in looked for name in row))
    _check_bounds(filters, columns)
    table: list[Row] = []
    with (to / "keep.txt").open("w") as keep, (to / "drop.jsonl").open("w") as drop:
        for row, reason in looked:
            firsts = {"same_as": None, "like": None} if reason else _firsts(row["index"], groups)
            reasons = [reason] if reason else list(_reasons(row, firsts, filters))
            for one in reasons or ["kept"]:
                counts[one] = counts.get(one, 0) + 1
            told = {name: row.get(name) for name in columns}
            table.append({**told, **firsts, "reasons": reasons})
            if reasons:
                drop.write(f"{canonical_json({'index': row['index'], 'path': row['path'], 'reasons': reasons})}\n")
            else:
                keep.write(f"{row['index']}\n")
    pq.write_table(pa.Table.from_pylist(table, schema=_schema(columns)), to / "curation.parquet", compression="zstd")
    return counts


def _firsts(index: int, groups: tuple[Groups, Groups]) -> Row:
    """The first index of the same pixels, and of those that look alike, where that is another one."""
    told = zip(("same_as", "like"), (group.first(index) for group in groups), strict=True)
    return {name: first if first != index else None for name, first in told}


def _reasons(row: Row, firsts: Row, filters: Filters) -> Iterator[str]:
    if firsts["same_as"] is not None and not filters.duplicates:
        yield "same pixels"
    elif firsts["like"] is not None and filters.near is not None:
        yield "looks alike"
    for name, least in filters.least.items():
        if row.get(name) is None or row[name] < least:
            yield f"{name} below {least:g}"
    for name, most in filters.most.items():
        if row.get(name) is None or row[name] > most:
            yield f"{name} above {most:g}"


def _check_bounds(filters: Filters, columns: Sequence[str]) -> None:
    known = [name for name in columns if name not in ("index", "id", "path")]
    for name in (*filters.least, *filters.most):
        if name not in known:
            raise CurateError(f"no column {name!r} to filter by: expected one of {', '.join(known)}")


def _schema(columns: Sequence[str]) -> pa.Schema:
    kinds = {"index": pa.int64(), "id": pa.string(), "path": pa.string(), "bytes": pa.int64()}
    named = {name: kinds.get(name, pa.float64()) for name in columns}
    return pa.schema({**named, "same_as": pa.int64(), "like": pa.int64(), "reasons": pa.list_(pa.string())})
