"""Rows -> the run's plan: its jobs in order, checked, hashed and packed as they will lie in the output.

Memory is flat: the plan's files and the jobs' ids lie in temporary files, and of each job there stay two bytes in
memory. A row that means the same job as one before it shares that one's image.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from promptmill.producer.errors import JobError, ModelNameError, PlanError, PromptFileError, PromptFileErrors
from promptmill.producer.fields import ALIASES
from promptmill.producer.image_formats import PNG, Encoding
from promptmill.producer.job import Job, JobId, Shape, canonical_json
from promptmill.producer.layout import image_name
from promptmill.producer.plan_builder import JOBS_PER_FILE, SHAPE_BITS, PlanBuilder, unpack
from promptmill.producer.plan_lines import PlannedJob, PlanReader, job_digest, plan_line, row_json
from promptmill.producer.prompts.expand import Expansion
from promptmill.producer.prompts.files import Reading, Row, read_prompt_files
from promptmill.producer.prompts.rejects import Rejects
from promptmill.producer.prompts.rows import RowJob, Rows
from promptmill.producer.prompts.seeds import next_range
from promptmill.producer.spool import ID_BYTES, Heaps, Pages

SEED = "seed"

MOST_NESTED = 100  # lists and objects in a label, one in the other; Python's json gives up near a thousand

Progress = Callable[[int], None]
AnyJob = str | Mapping[str, Any] | Job


def _silent(count: int) -> None:
    pass


@dataclass(frozen=True)
class PlanOptions:
    """What turns rows into jobs. `defaults` are fields of jobs for rows that do not say otherwise.

    `on_error` "stop": no plan where a row is wrong; "skip": the plan of the others. `rejects`: a file for wrong rows.
    `start`: the index in its run that the first job will have, from which seeds follow. `encoding`: how images are
    written; None: as the run has them, PNG in a new one.
    """

    defaults: Mapping[str, Any] = field(default_factory=dict)
    preset: str | None = None
    reading: Reading = field(default_factory=Reading)
    expansion: Expansion = field(default_factory=Expansion)
    on_error: str = "stop"
    rejects: Path | None = None
    start: int = 0
    encoding: Encoding | None = None


class Bytes(Protocol):
    """Byte strings by number."""

    def __getitem__(self, number: int, /) -> bytes: ...
    def __len__(self) -> int: ...


class Plan:
    """A run's jobs in order; iteration yields a PlannedJob each, any number of times. Use as a context manager.

    `pages` are the plan's files, packed; `rows` were read for it, wrong ones included. `heaps` has each job's id,
    numbered by its index and its shape's number. `start` is the index from which its seeds were counted, `seeds_end`
    the one behind the last. `cut` counts
    jobs whose prompt is longer than its windows. `asked` is the encoding of its images, None where nobody said.
    `derived` has a 1 for each job whose seed follows from its index and `run_seed`, as far as that is known.
    """

    def __init__(
        self,
        pages: Bytes,
        heaps: Heaps,
        *,
        digest: str,
        shape_keys: Sequence[str],
        common: Mapping[str, Any],
        page_jobs: int,
        rows: int = 0,
        rejects: Rejects | None = None,
        warnings: Callable[[str | None], list[str]] = lambda preset: [],
        cut: int = 0,
        start: int = 0,
        seeds_end: int | None = None,
        asked: Encoding | None = None,
        derived: bytearray | None = None,
        run_seed: int = 0,
    ) -> None:
        self.asked = asked
        self.derived = bytearray(len(heaps)) if derived is None else derived
        self.run_seed = run_seed
        self.pages = pages
        self.heaps = heaps
        self.jobs = len(heaps)
        self.digest = digest
        self.common = dict(common)
        self.page_jobs = page_jobs
        self.rows = rows
        self.rejects = rejects or Rejects()
        self.warnings = warnings
        self.cut = cut
        self.start = start
        self.seeds_end = start + self.jobs if seeds_end is None else seeds_end
        self.shape_list = [Shape.from_key(key) for key in shape_keys]
        self._repeats = bytearray(self.jobs)  # 1: the job of an index before
        self.shapes = dict(zip(self.shape_list, self._count_shapes(), strict=True))
        self.images = sum(self.shapes.values())

    @property
    def encoding(self) -> Encoding:
        """How its images are written."""
        return self.asked or PNG

    def image_name(self, job_id: JobId) -> str:
        """The job's object under its run's output."""
        return image_name(job_id, self.encoding.extension)

    @property
    def rejected(self) -> int:
        """Rows that were wrong."""
        return self.rejects.count

    @property
    def duplicates(self) -> int:
        """Jobs that a row before means too."""
        return self.jobs - self.images

    @property
    def packed_bytes(self) -> int:
        """The plan's files together."""
        return sum(len(self.pages[number]) for number in range(len(self.pages)))

    def __iter__(self) -> Iterator[PlannedJob]:
        return self.since(0)

    def since(self, index: int) -> Iterator[PlannedJob]:
        """The jobs from an index of the run on."""
        reader = PlanReader(self.common)
        for number in range(index // self.page_jobs, len(self.pages)):
            start = number * self.page_jobs
            lines = unpack(self.pages[number])
            skipped = max(index - start, 0)
            repeats = self._repeats[start : start + len(lines)]
            for line, repeated in zip(lines[skipped:], repeats[skipped:], strict=True):
                yield reader.job(line, bool(repeated))

    def at(self, indexes: Sequence[int]) -> Iterator[PlannedJob]:
        """The jobs at these indexes, which are in order; only the files that hold them are read."""
        reader = PlanReader(self.common)
        held, lines = -1, list[str]()
        for index in indexes:
            number, line = divmod(index, self.page_jobs)
            if number != held:
                held, lines = number, unpack(self.pages[number])
            yield reader.job(lines[line], bool(self._repeats[index]))

    def whole(self, job: PlannedJob) -> Job:
        """The job with all of its fields. Raises PlanError where the plan or its run.json was changed by hand."""
        try:
            return Job(**{**self.common, **json.loads(job.own_json)})
        except (TypeError, JobError) as error:
            raise PlanError(f"the plan is damaged: job {job.id} (index {job.index}): {error}") from error

    def default_name(self, stem: str, output_url: str) -> str:
        """A run name that is the same for the same jobs at the same output, and another for others."""
        salt = hashlib.sha256(f"{self.digest}\n{output_url}".encode()).hexdigest()[:6]
        return f"{clean_name(stem)}-{salt}"

    def close(self) -> None:
        """Removes the temporary files."""
        self.heaps.close()
        self.rejects.close()
        if isinstance(self.pages, Pages):
            self.pages.close()

    def __enter__(self) -> "Plan":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _count_shapes(self) -> list[int]:
        """The distinct jobs of each shape; marks the others as repeats."""
        counts = [0] * len(self.shape_list)
        for first_byte in range(256):
            seen: set[bytes] = set()
            for digest, number in self.heaps.heap(first_byte):
                if digest in seen:
                    self._repeats[number >> SHAPE_BITS] = 1
                else:
                    seen.add(digest)
                    counts[number & (1 << SHAPE_BITS) - 1] += 1
        return counts


def clean_name(stem: str) -> str:
    """A run name from a file's: letters, digits, `.`, `_` and `-`."""
    name = "".join(char if char.isascii() and (char.isalnum() or char in "._-") else "-" for char in stem)
    return name.strip(".-")[:80].rstrip(".-") or "run"


def check_run_name(name: str) -> str:
    """Raises PlanError for a name that would not stand in an object's name or a folder's."""
    if name != clean_name(name):
        raise PlanError(f"run name {name!r}: use letters, digits, '.', '_' and '-', e.g. {clean_name(name)!r}")
    return name


def plan_run(
    names: Sequence[str], options: PlanOptions | None = None, *, progress: Progress = _silent, needed: bool = True
) -> Plan:
    """The plan that prompt files mean; `progress` is told the jobs so far.

    A row with no seed gets one by its index in the run, so the same files give the same plan again. Raises
    PromptFileErrors, with the first 20 wrong rows listed, where rows are wrong that `options` do not let be skipped, or
    where there are no jobs (unless none are `needed`); JobError for a wrong flag, ModelNameError, ExpansionError.
    """
    options = options or PlanOptions()
    notes: list[str] = []
    rows = read_prompt_files(names, replace(options.reading, note=notes.append))
    plan = _make(rows, ", ".join(names), options, progress, needed)
    told = plan.warnings
    plan.warnings = lambda preset: [*notes, *told(preset)]
    return plan


def plan_jobs(
    jobs: Iterable[AnyJob | Row | PromptFileError], options: PlanOptions | None = None, *, progress: Progress = _silent
) -> Plan:
    """The plan of prompts, of mappings with the fields of a prompt file's rows, or of jobs that are complete."""
    return _make(_job_rows(jobs), "jobs", options or PlanOptions(), progress, True, of_files=False)


def _job_rows(jobs: Iterable[AnyJob | Row | PromptFileError]) -> Iterator[tuple[str, Row | Job | PromptFileError]]:
    for number, job in enumerate(jobs, start=1):
        if isinstance(job, str):
            yield "jobs", Row(number, {"prompt": job}, {})
        elif isinstance(job, Job | Row | PromptFileError):
            yield "jobs", job
        elif isinstance(job, Mapping):
            yield "jobs", Row(number, {name: value for name, value in job.items() if value is not None}, {})
        else:
            problem = f"must be a prompt, a mapping of fields, or a Job, got {type(job).__name__}"
            yield "jobs", PromptFileError("jobs", number, None, problem)


def _make(
    rows: Iterable[tuple[str, Row | Job | PromptFileError]],
    source: str,
    options: PlanOptions,
    progress: Progress,
    needed: bool,
    of_files: bool = True,
) -> Plan:
    with contextlib.ExitStack() as stack:
        maker = _Maker(options, stack, of_files=of_files)
        for number, (path, row) in enumerate(rows):
            maker.take(path, row, number)
            if not number % 5000:
                progress(maker.count)
        plan = maker.plan(source, needed)
        stack.pop_all()  # from here on, closing the files is the plan's
        return plan


class _Maker:
    """A plan in the making. Packing a page is done by a thread, while the next is filled."""

    def __init__(self, options: PlanOptions, stack: contextlib.ExitStack, *, of_files: bool) -> None:
        self._row_count = 0
        self._of_files = of_files
        self._stop = options.on_error == "stop"
        self._rows = Rows(options.defaults, options.preset, options.expansion)
        self._rejects = Rejects(options.rejects, keep=not self._stop)
        self._start, self._asked = options.start, options.encoding
        self._shift = options.start  # between a job's index in this plan and that of its seed
        self._path: str | None = None
        self._derived, self._run_seed = bytearray(), options.expansion.run_seed
        self._seeded = any(ALIASES.get(name, name) == SEED for name in (*options.defaults, *options.expansion.matrix))
        stack.callback(self._rejects.close)
        self._built = PlanBuilder(stack, JOBS_PER_FILE)

    @property
    def count(self) -> int:
        """The jobs so far."""
        return self._built.count

    def take(self, path: str, row: Row | Job | PromptFileError, number: int) -> None:
        self._row_count += 1
        if path != self._path:
            if self._path is not None:
                self._shift = next_range(self._shift + self.count) - self.count
            self._path = path
        if isinstance(row, Row):
            self._take_row(path, row)
        elif isinstance(row, PromptFileError):
            self._rejects.add(row)
        else:
            self._enter(self._rows.exactly(row, f"{path}:{number + 1}"), None)
            self._derived.append(0)

    def _take_row(self, path: str, row: Row) -> None:
        try:
            labels = _labels_json(row.labels) if row.labels else None
            jobs = self._rows.jobs(row.fields, self._shift + self._built.count, f"{path}:{row.line}", row.unused)
        except JobError as error:
            field = error.field  # under its own name; the user may have written another one
            if field not in row.fields:
                field = next((name for name in row.fields if ALIASES.get(name) == field), field)
            self._rejects.add(PromptFileError(path, row.line, field, error.problem), {**row.fields, **row.labels})
        except ModelNameError as error:
            self._rejects.add(PromptFileError(path, row.line, "model", str(error)), {**row.fields, **row.labels})
        except RecursionError:
            self._rejects.add(PromptFileError(path, row.line, None, "is nested too deeply"))
        else:
            at = row_json(path, row.line) if self._of_files else ""
            for job in jobs:
                self._enter(job, labels, at)
            self._derived += bytes([not self._seeded and row.fields.get(SEED) is None]) * len(jobs)

    def _enter(self, job: RowJob, labels: str | None, row: str = "") -> None:
        kind, prompt, seed, drawn = job
        text = kind.json(prompt, seed)
        digest = job_digest(text)
        job_id = digest[:ID_BYTES].hex()
        line = plan_line(job_id, self._built.count, text, labels, drawn, row)
        self._built.add(digest, job_id, kind.shape_number, line)

    def plan(self, source: str, needed: bool) -> Plan:
        """Raises PromptFileErrors where rows were wrong that must not be, PromptFileError where there are no jobs."""
        self._rejects.end()
        if self._rejects.count and self._stop:
            raise PromptFileErrors(self._rejects.first, self._rejects.count)
        if not self.count and needed:
            if self._rejects.count:
                raise PromptFileErrors(self._rejects.first, self._rejects.count)
            raise PromptFileError(source, 0, None, "has no prompts")
        digest = self._built.finish()
        return Plan(
            self._built.pages,
            self._built.heaps,
            digest=digest,
            shape_keys=list(self._rows.shapes),
            common=self._rows.common or {},
            page_jobs=self._built.page_jobs,
            rows=self._row_count,
            rejects=self._rejects,
            warnings=self._rows.warnings,
            cut=self._rows.doubts.cut,
            start=self._start,
            seeds_end=self._shift + self.count,
            asked=self._asked,
            derived=self._derived,
            run_seed=self._run_seed,
        )


def _labels_json(labels: Mapping[str, Any]) -> str:
    """Raises JobError for what JSON cannot hold: a date, a NaN, half a surrogate pair. RecursionError."""
    try:
        text = canonical_json(labels)
        text.encode()
    except (TypeError, ValueError) as error:
        name = next((name for name in labels if not _is_json({name: labels[name]})), "labels")
        raise JobError(name, f"cannot be kept as a label: {error}") from error
    if text.count("[") + text.count("{") > MOST_NESTED:
        deep = next((name for name, value in labels.items() if _is_deeper(value, MOST_NESTED)), None)
        if deep is not None:
            raise JobError(deep, "cannot be kept as a label: nested too deeply")
    return text


def _is_deeper(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else None
    return inner is not None and (levels == 0 or any(_is_deeper(one, levels - 1) for one in inner))


def _is_json(labels: Mapping[str, Any]) -> bool:
    try:
        canonical_json(labels).encode()
    except (TypeError, ValueError):
        return False
    return True
