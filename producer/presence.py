"""Which of a plan's images lie in the output already: a byte per job, found heap by heap."""

import contextlib
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import NamedTuple

from promptmill.producer.image_formats import Encoding
from promptmill.producer.job import JobId, Shape
from promptmill.producer.layout import IMAGES, Look, image_name, job_of, look
from promptmill.producer.outputs.output import Listed, ObjectNotFound, Output
from promptmill.producer.plan import Plan
from promptmill.producer.plan_builder import SHAPE_BITS
from promptmill.producer.plan_files import read_run
from promptmill.producer.spool import Heaps

LOOKERS = 16  # threads: of a bucket's objects that do not tell, each costs a round trip or two
LOOKED_AT_ONCE = 100  # objects per task of a thread
NAMED = 20  # of the names that something else has, how many are kept

_LOOKS = list(Look)


@dataclass(frozen=True)
class Present:
    """`indexes` has a 1 for each distinct job, at its first index, whose image is there; `shapes` counts them.

    `broken` images are cut off or empty, and not there. `taken` names are somebody else's, the first of them `names`.
    """

    indexes: bytearray
    shapes: dict[Shape, int]
    broken: int = 0
    taken: int = 0
    names: list[str] = field(default_factory=list)

    @property
    def images(self) -> int:
        return sum(self.shapes.values())


def find_present(plan: Plan, run_output: Output) -> Present:
    """What of the plan is in the run's output. Raises PlanError, OutputError."""
    known = read_run(run_output)
    encoding = plan.encoding if known is None else Encoding.of_run(known)
    return present_of(plan, look_at_images(run_output, encoding.extension), encoding.extension)


def images_present(run_output: Output) -> set[JobId]:
    """The ids of the jobs whose image is in the output."""
    return {job_id for job_id, found in look_at_images(run_output) if found is Look.OURS}


def look_at(run_output: Output, name: str, job_id: JobId) -> Look | None:
    """What lies in the output under the name of a job's image; None for nothing. Raises OutputError."""
    there = [(listed, job_id) for listed in run_output.scan(name) if listed.name == name]
    return next((found.look for found in _look_at(run_output, there)), None)


class Looked(NamedTuple):
    """What lies under the name of a job's image."""

    job_id: JobId
    look: Look
    listed: Listed


def look_at_images(run_output: Output, extension: str | None = None) -> Iterator[tuple[JobId, Look]]:
    """What lies in the output under the names of images, of this extension if one is given, whatever plan they are of.

    Raises OutputError.
    """
    return ((found.job_id, found.look) for found in looked_at(run_output, extension))


def looked_at(run_output: Output, extension: str | None = None) -> Iterator[Looked]:
    """The same, with what the listing says of each."""
    named = ((listed, job_of(listed.name, extension)) for listed in run_output.scan(f"{IMAGES}/"))
    images = ((listed, job_id) for listed, job_id in named if job_id is not None)
    looking: deque[Future[list[Looked]]] = deque()
    with ThreadPoolExecutor(LOOKERS, "look") as lookers:
        while some := list(islice(images, LOOKED_AT_ONCE)):
            looking.append(lookers.submit(_look_at, run_output, some))
            if len(looking) > 2 * LOOKERS:
                yield from looking.popleft().result()
        for looked in looking:
            yield from looked.result()


def _look_at(run_output: Output, some: Iterable[tuple[Listed, JobId]]) -> list[Looked]:
    found = []
    for listed, job_id in some:
        with contextlib.suppress(ObjectNotFound):  # deleted since it was listed
            found.append(Looked(job_id, look(listed, job_id, partial(run_output.read, listed.name)), listed))
    return found


def present_of(plan: Plan, looks: Iterable[tuple[JobId, Look]], extension: str = "png") -> Present:
    """What of the plan is among these."""
    indexes, shapes, names = bytearray(plan.jobs), [0] * len(plan.shape_list), list[str]()
    counts: Counter[Look] = Counter()
    there = Heaps()
    try:
        for job_id, found in looks:
            there.add(bytes.fromhex(job_id), _LOOKS.index(found))
        for first_byte in range(256) if len(there) else ():
            heap = dict(there.heap(first_byte))
            for digest, number in plan.heaps.heap(first_byte) if heap else ():
                if (at := heap.pop(digest, None)) is None:  # its first index counts, and no other
                    continue
                counts[_LOOKS[at]] += 1
                if _LOOKS[at] is Look.OURS:
                    indexes[number >> SHAPE_BITS] = 1
                    shapes[number & (1 << SHAPE_BITS) - 1] += 1
                elif _LOOKS[at] is Look.FOREIGN and len(names) < NAMED:
                    names.append(image_name(JobId(digest.hex()), extension))
    finally:
        there.close()
    by_shape = dict(zip(plan.shape_list, shapes, strict=True))
    return Present(indexes, by_shape, counts[Look.BROKEN], counts[Look.FOREIGN], names)
