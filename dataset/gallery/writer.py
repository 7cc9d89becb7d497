"""Writes a run's gallery, range by range, into its output:

    gallery/index.html          open this; app.js and style.css belong to it
    gallery/run.js              the run's name and size, and the runs to compare with
    gallery/data/00000.js       rows of a thousand indexes; rows.py
    gallery/sprites/00000.webp  thumbnails of a hundred, where there are any; sprites.py

A range's data is written after its sprites and begins with a digest of all that went into them: what has that digest is
left as it is, so a gallery may be stopped, and written anew when more images have come. Memory is that of one range.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import islice
from typing import Any

from promptmill.dataset.gallery.rows import CHUNK_ROWS, FORMAT, Range, columns
from promptmill.dataset.gallery.script import call
from promptmill.dataset.gallery.sprites import COLUMNS, SIDE, SPRITE_ROWS, Thumbnail, draw_sprite, thumbnail
from promptmill.dataset.gallery.states import DONE, States, image_states
from promptmill.dataset.parallel import mapped
from promptmill.dataset.scores import finite
from promptmill.producer.fields import ALIASES
from promptmill.producer.image_formats import IMAGE_FORMATS
from promptmill.producer.layout import image_name
from promptmill.producer.outputs.output import ObjectNotFound, Output
from promptmill.producer.plan import Plan
from promptmill.producer.plan_lines import PlannedJob

FOLDER = "gallery/"
INDEX = f"{FOLDER}index.html"

SCRIPTS = ("start", "data", "query", "sprites", "grid", "fields", "facets", "command", "full", "sweep", "main")
"""app.js, in this order: files of one scope, since modules are not loaded from the disk either."""

_HEAD_BYTES = 64
_TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    **{row.extension: row.content_type for row in IMAGE_FORMATS.values()},
}


@dataclass(frozen=True)
class Made:
    """A range of indexes whose files lie in the output now; `kept`: they were there before."""

    first: int
    end: int
    kept: bool


def write_gallery(
    output: Output,
    plan: Plan,
    reasons: Mapping[int, str],
    *,
    name: str,
    scores: Mapping[str, Sequence[float]] | None = None,
    compare: Sequence[Mapping[str, Any]] = (),
    progress: Callable[[Made], None] = lambda made: None,
) -> dict[str, int]:
    """Write the gallery of a run's output; return how many ranges were written and how many were there.

    `reasons` are those of failed jobs by index, `scores` a number for each index (NaN: none), `compare` the names of
    other runs and where their galleries lie beside this one. Raises OutputError, PlanError.
    """
    there = set(output.list(FOLDER))
    counts = {"written": 0, "kept": 0}
    for rows in _ranges(plan, image_states(output, plan), reasons, scores or {}):
        made = _write_range(output, rows, there)
        counts["kept" if made.kept else "written"] += 1
        progress(made)
    about = {
        "format": FORMAT,
        "run": name,
        "jobs": plan.jobs,
        "chunk_rows": CHUNK_ROWS,
        "sprite_rows": SPRITE_ROWS,
        "columns": COLUMNS,
        "side": SIDE,
        "aliases": ALIASES,
        "compare": list(compare),
    }
    _put(output, f"{FOLDER}run.js", call("run", about))
    for page, data in page_files().items():
        _put(output, f"{FOLDER}{page}", data)
    return counts


def page_files() -> dict[str, bytes]:
    """The page itself, the same for every run; index.html is the last."""
    page = files("promptmill.dataset.gallery") / "page"
    parts = [(page / f"{script}.js").read_text(encoding="utf-8") for script in SCRIPTS]
    app = f'"use strict";\n(() => {{\n{"".join(parts)}}})();\n'
    rest = {name: (page / name).read_bytes() for name in ("style.css", "index.html")}
    return {"app.js": app.encode(), **rest}


def content_type(name: str) -> str:
    """Of an object that a gallery's page asks for, by its name."""
    return _TYPES[name.rpartition(".")[2]]


def _ranges(
    plan: Plan, images: States, reasons: Mapping[int, str], scores: Mapping[str, Sequence[float]]
) -> Iterator[Range]:
    jobs = iter(plan)
    while some := list(islice(jobs, CHUNK_ROWS)):
        first, end = some[0].index, some[0].index + len(some)
        numbers = {name: [finite(one) for one in column[first:end]] for name, column in scores.items()}
        states, versions = bytes(images.states[first:end]), images.versions[first:end]
        yield Range(some, states, plan.common, reasons, numbers, plan.encoding.extension, versions)


def _write_range(output: Output, rows: Range, there: set[str]) -> Made:
    first, end = rows.jobs[0].index, rows.jobs[-1].index + 1
    data, digest = f"{FOLDER}data/{rows.number:05d}.js", rows.digest()
    sprites = {
        at: f"{FOLDER}sprites/{(first + at) // SPRITE_ROWS:05d}.webp"
        for at in range(0, end - first, SPRITE_ROWS)
        if DONE in rows.states[at : at + SPRITE_ROWS]
    }
    head = call("chunk", digest).removesuffix(b");\n") + b","
    if {data, *sprites.values()} <= there and output.read(data, 0, _HEAD_BYTES).startswith(head):
        return Made(first, end, kept=True)
    thumbnails = list(mapped(lambda pair: _thumbnail(output, rows, *pair), zip(rows.jobs, rows.states, strict=True)))
    for at, sprite in sprites.items():
        _put(output, sprite, draw_sprite([one or Thumbnail(None) for one in thumbnails[at : at + SPRITE_ROWS]]))
    _put(output, data, call("chunk", digest, columns(rows, thumbnails)))
    return Made(first, end, kept=False)


def _thumbnail(output: Output, rows: Range, job: PlannedJob, state: int) -> Thumbnail | None:
    if state != DONE:
        return None
    try:
        return thumbnail(output.get(image_name(job.id, rows.extension)))
    except ObjectNotFound:
        return Thumbnail(None, "is gone since it was listed")


def _put(output: Output, name: str, data: bytes) -> None:
    output.put_once(name, data, content_type=content_type(name), broken=lambda existing: True)
