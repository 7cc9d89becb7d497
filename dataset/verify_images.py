"""Each row of the manifest against the plan, and each image against both: every byte, and its job inside."""

from collections.abc import Iterator
from itertools import chain, repeat

from promptmill.dataset.findings import Finding
from promptmill.dataset.images import ImageError
from promptmill.dataset.manifest import MANIFEST, Row, planned_row, whole_image
from promptmill.dataset.parallel import mapped
from promptmill.dataset.stored_manifest import ManifestError
from promptmill.dataset.subject import Subject
from promptmill.producer.job import Job
from promptmill.producer.layout import RUN_JSON
from promptmill.producer.outputs.output import ObjectNotFound
from promptmill.producer.plan_lines import PlannedJob
from promptmill.producer.words import count

SHOWN = 60
"""Characters of a value in a sentence."""


def check_images(subject: Subject) -> Iterator[Finding]:
    """What is wrong with rows and images. Memory does not grow with the run. Raises OutputError."""
    manifest, jobs = subject.manifest, subject.plan.jobs
    if manifest is not None and manifest.jobs != jobs:
        yield Finding(MANIFEST, f"has {count(manifest.jobs, 'row')}, expected {jobs}")
        manifest = None
    rows = repeat(None) if manifest is None else manifest.rows()
    try:
        pairs = zip(subject.plan, rows, strict=False)
        yield from chain.from_iterable(mapped(lambda pair: list(_check(subject, *pair)), pairs))
    except ManifestError as error:
        yield Finding(MANIFEST, str(error), kind="damaged")


def check_row(planned: PlannedJob, job: Job, row: Row) -> Iterator[Finding]:
    """Where a row of the manifest differs from what the plan says of it."""
    for name, expected in planned_row(planned, job).items():
        if row.get(name) != expected:
            told = f"row {planned.index}: {name} is {_shown(row.get(name))}, expected {_shown(expected)}"
            yield Finding(MANIFEST, told, planned.index)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _check(subject: Subject, planned: PlannedJob, row: Row | None) -> Iterator[Finding]:
    job = subject.plan.whole(planned)
    if job.id != planned.id:
        where = subject.page_of(planned.index)
        yield Finding(where, f"the id of index {planned.index} is not that of its job", planned.index)
        return
    if row is not None:
        yield from check_row(planned, job, row)
    if planned.first:
        yield from _check_image(subject, planned, job, row)


def _check_image(subject: Subject, planned: PlannedJob, job: Job, row: Row | None) -> Iterator[Finding]:
    name, index = subject.plan.image_name(planned.id), planned.index
    try:
        facts = whole_image(subject.output.get(name), job, decode=True)
    except ObjectNotFound:
        yield from check_absence(subject, name, index, row)
    except ImageError as error:
        yield Finding(name, str(error), index, "damaged")
    else:
        expected = facts.sha256 if row is None else row["sha256"]
        if expected is None:
            yield Finding(name, "has come since the run was packed", index)
        elif expected != facts.sha256:
            yield Finding(name, "has other bytes than when it was packed", index)
        yield from check_presence(subject, name, index)


def check_absence(subject: Subject, name: str, index: int, row: Row | None) -> Iterator[Finding]:
    """What is wrong about an image that is not there: nothing, where its job failed or the manifest says so."""
    if subject.ledger is not None and subject.ledger.is_done(index):
        yield Finding(name, "is missing, and Redis counts it as done", index, "gone")
    elif not subject.failed(index) if row is None else row["state"] == "done":
        yield Finding(name, "is missing", index, "gone")


def check_presence(subject: Subject, name: str, index: int) -> Iterator[Finding]:
    """What is wrong about an image that is there as it should be."""
    if subject.failed(index):
        yield Finding(name, "is there, and Redis counts it as failed", index, "redis")


def check_ledger(subject: Subject) -> Iterator[Finding]:
    """Whether Redis means the same run."""
    ledger, known = subject.ledger, [plan["digest"] for plan in subject.run.get("earlier", [])]
    if ledger is not None and ledger.digest not in (subject.plan.digest, *known):
        yield Finding(RUN_JSON, "Redis knows another plan under this run's name", kind="redis")
