"""Which of a plan's images lie in the output already: a byte a job, found heap by heap."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from promptmill.producer.job import JobId, Shape
from promptmill.producer.outputs.output import Output
from promptmill.producer.plan import SHAPE_BITS, Plan
from promptmill.producer.spool import ID_BYTES, Heaps

IMAGES = "images"


def image_name(job_id: JobId, extension: str = "png") -> str:
    """The job's object under its run's output. The hash leads: a bucket dislikes sequential names."""
    return f"{IMAGES}/{job_id[:2]}/{job_id}.{extension}"


def list_images(run_output: Output) -> Iterator[JobId]:
    """The ids of the jobs whose image is in the output."""
    return (JobId(name.rpartition("/")[2].partition(".")[0]) for name in run_output.list(f"{IMAGES}/"))


def images_present(run_output: Output) -> set[JobId]:
    """The same, all at once."""
    return set(list_images(run_output))


@dataclass(frozen=True)
class Present:
    """`indexes` has a 1 for each distinct job, at its first index, whose image is there."""

    indexes: bytearray
    shapes: dict[Shape, int]

    @property
    def images(self) -> int:
        return sum(self.shapes.values())


def find_present(plan: Plan, run_output: Output) -> Present:
    """What of the plan is in the run's output. Raises OutputError."""
    return present_of(plan, list_images(run_output))


def present_of(plan: Plan, ids: Iterable[JobId]) -> Present:
    """What of the plan is among these ids."""
    indexes, counts = bytearray(plan.jobs), [0] * len(plan.shape_list)
    there = Heaps()
    try:
        for job_id in ids:
            if (digest := _digest(job_id)) is not None:
                there.add(digest, 0)
        for first_byte in range(256) if len(there) else ():
            found = {digest for digest, _ in there.heap(first_byte)}
            for digest, number in plan.heaps.heap(first_byte) if found else ():
                if digest in found:
                    found.remove(digest)  # its first index counts, and no other
                    indexes[number >> SHAPE_BITS] = 1
                    counts[number & (1 << SHAPE_BITS) - 1] += 1
    finally:
        there.close()
    return Present(indexes, dict(zip(plan.shape_list, counts, strict=True)))


def _digest(job_id: str) -> bytes | None:
    """None for a name that is no job's: somebody's own file."""
    try:
        digest = bytes.fromhex(job_id)
    except ValueError:
        return None
    return digest if len(digest) == ID_BYTES else None
