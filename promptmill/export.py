"""A run's images under names that people can read: `000017-a-red-apple.png` for index 17.

Of a folder they are hard links, of a bucket copies. A name is made for each index, so that jobs that share an image
each have it; two indexes with one name are refused before anything is written. What is there and is the job's own
image is kept, so an export may be repeated, and goes on where it was stopped.
"""

import json
import os
import re
import string
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import get_ident
from typing import Any

from promptmill.producer.errors import PlanError
from promptmill.producer.layout import Look, image_name, look_inside
from promptmill.producer.outputs.output import RESERVED, ObjectNotFound, Output
from promptmill.producer.plan import Plan
from promptmill.producer.plan_lines import PlannedJob

AT_ONCE = 16  # images on their way: a bucket takes a tenth of a second for each
BATCH = 512  # jobs handed to the threads together
SLUG_CHARS = 60
LABEL_CHARS = 100
OWN_NAMES = ("index", "slug", "id", "seed")

_NO_NAME = re.compile(r"[^\w.-]+|[\x00-\x1f]")


@dataclass(frozen=True)
class Settings:
    """`name` is the template of names, without suffix; its folders are made. `copy`: no hard links."""

    folder: Path
    name: str = "{index:06d}-{slug}"
    captions: bool = False
    copy: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class Exported:
    """The indexes whose image is in the folder now, those of them that were there before, those without an image."""

    images: int
    kept: int
    missing: int


def slug(text: str, most: int = SLUG_CHARS) -> str:
    """Words of a text as a part of a file's name, in the text's own script."""
    words = _NO_NAME.sub("-", text.lower()[: 4 * most]).strip("-._")
    return words[:most].rstrip("-._") or "image"


def name_of(template: str, job: PlannedJob) -> str:
    """The name of a job's image. Raises PlanError where the template asks for what the job does not have."""
    own = json.loads(job.own_json)
    labels = {name: _part(value) for name, value in (job.labels or {}).items()}
    known = {**labels, "index": job.index, "id": job.id, "seed": own["seed"], "slug": slug(own["prompt"])}
    try:
        name = template.format_map(known)
    except KeyError as error:
        raise PlanError(f"--name: index {job.index} has no {error} (known: {', '.join(known)})") from error
    except ValueError as error:
        raise PlanError(f"--name {template!r}: {error}") from error
    if any(part.strip(". ") == "" or len(part.encode()) > 250 for part in name.split("/")):
        raise PlanError(f"--name: index {job.index} would be called {name[:80]!r}, which is not a valid file name")
    return name


def check_template(template: str) -> None:
    """Raises PlanError for a template that is none, or that leads out of its folder."""
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise PlanError(f"--name {template!r}: {error}") from error
    wrong = next((name for name in names if not name or not re.fullmatch(r"[\w -]+", name)), None)
    if wrong is not None:
        raise PlanError(f"--name {template!r}: {{{wrong}}} is neither one of {', '.join(OWN_NAMES)} nor a label")
    if template.startswith("/") or ".." in template.split("/"):
        raise PlanError(f"--name {template!r}: must stay within the folder")


def export(
    output: Output,
    plan: Plan,
    settings: Settings,
    *,
    takes: Callable[[PlannedJob], bool],
    progress: Callable[[int], None],
) -> Exported:
    """Brings the images of the jobs that `takes` names into a folder. Raises PlanError, OutputError."""
    check_template(settings.name)
    _check_names(plan, settings.name, takes)
    bring = _Bringer(output, settings, plan.encoding.extension)
    counts = {True: 0, False: 0, None: 0}
    with ThreadPoolExecutor(AT_ONCE, "export") as pool:
        jobs = filter(takes, plan)
        while batch := list(islice(jobs, BATCH)):
            try:
                for made in pool.map(bring, batch):
                    counts[made] += 1
            except OSError as error:
                raise PlanError(f"{error.filename}: {error.strerror}") from error
            progress(sum(counts.values()))
    return Exported(counts[True] + counts[False], counts[False], counts[None])


def _check_names(plan: Plan, template: str, takes: Callable[[PlannedJob], bool]) -> None:
    """No two indexes may have one name, nor two that some file systems hold for one."""
    seen: dict[int, int] = {}
    for job in filter(takes, plan):
        name = name_of(template, job)
        other = seen.setdefault(hash(name.casefold()), job.index)
        if other != job.index:
            raise PlanError(f"--name: index {other} and index {job.index} would both be called {name!r}; add {{index}}")


class _Bringer:
    """Brings one image; True where it is new, False where it was there, None where there is no image."""

    def __init__(self, output: Output, settings: Settings, extension: str) -> None:
        self._output, self._extension = output, extension
        self._settings = settings
        self._source = None if "://" in output.url else Path(output.url)

    def __call__(self, job: PlannedJob) -> bool | None:
        name = name_of(self._settings.name, job)
        target = self._settings.folder / f"{name}.{self._extension}"
        made = self._image(job, target)
        if made is not None and self._settings.captions:
            caption = json.loads(job.own_json)["prompt"]
            self._write(target.with_name(f"{target.name.removesuffix(f'.{self._extension}')}.txt"), caption.encode())
        return made

    def _image(self, job: PlannedJob, target: Path) -> bool | None:
        if self._is_image_of(job, target):
            return False
        name = image_name(job.id, self._extension)
        try:
            if self._source is None:
                data = self._output.get(name)
                ours = look_inside(job.id, len(data), lambda start, length: data[start:][:length], self._extension)
            else:
                data, ours = b"", self._look(job, self._source / name)
        except (ObjectNotFound, FileNotFoundError):
            return None
        if ours is not Look.OURS:
            return None
        if self._source is None or self._settings.copy:
            self._write(target, data or self._output.get(name))
        else:
            self._link(self._source / name, target)
        return True

    def _link(self, source: Path, target: Path) -> None:
        self._make_room(target)
        try:
            os.link(source, target)
        except OSError:  # another file system, or one without links
            self._write(target, source.read_bytes())

    def _write(self, target: Path, data: bytes) -> None:
        if target.is_file() and target.read_bytes() == data:
            return
        self._make_room(target)
        write_whole(target, [data])

    def _make_room(self, target: Path) -> None:
        if target.exists() or target.is_symlink():
            if not self._settings.overwrite:
                raise PlanError(f"{target} exists and differs: --overwrite replaces it")
            target.unlink()
        target.parent.mkdir(parents=True, exist_ok=True)

    def _is_image_of(self, job: PlannedJob, path: Path) -> bool:
        try:
            return self._look(job, path) is Look.OURS
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return False

    def _look(self, job: PlannedJob, path: Path) -> Look:
        with path.open("rb") as file:

            def read(start: int, length: int) -> bytes:
                file.seek(start)
                return file.read(length)

            return look_inside(job.id, os.fstat(file.fileno()).st_size, read, self._extension)


def write_whole(target: Path, parts: Iterator[bytes] | list[bytes]) -> None:
    """Writes a file that is there whole, or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{RESERVED}{os.getpid()}-{get_ident()}")
    try:
        with temporary.open("wb") as file:
            file.writelines(parts)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _part(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return _NO_NAME.sub("-", text).strip("-")[:LABEL_CHARS] or "none"
