"""Which indexes of a run have their image: a byte per index, also for rows that mean the same job."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

from promptmill.producer.layout import Look
from promptmill.producer.outputs.output import Listed, Output
from promptmill.producer.plan import Plan
from promptmill.producer.plan_builder import SHAPE_BITS
from promptmill.producer.presence import looked_at
from promptmill.producer.spool import Heaps

MISSING, DONE, BROKEN = 0, 1, 2

_STATES = {Look.OURS: DONE, Look.BROKEN: BROKEN, Look.FOREIGN: BROKEN}


@dataclass(frozen=True)
class States:
    """Per index: MISSING, DONE or BROKEN; and a number of 32 bits that is another one when the image is another one,
    rendered anew under its name, as far as a listing tells: by checksum in a bucket, by size and time in a folder."""

    states: bytearray
    versions: Sequence[int]


def image_states(output: Output, plan: Plan) -> States:
    """What there is of the plan's images, by a listing. Raises OutputError."""
    states, versions, found = bytearray(plan.jobs), array("I", bytes(4 * plan.jobs)), Heaps()
    try:
        for job_id, look, listed in looked_at(output, plan.encoding.extension):
            found.add(bytes.fromhex(job_id), _version(listed) << 2 | _STATES[look])
        for first_byte in range(256) if len(found) else ():
            there = dict(found.heap(first_byte))
            for digest, number in plan.heaps.heap(first_byte):
                image, index = there.get(digest, MISSING), number >> SHAPE_BITS
                states[index], versions[index] = image & 3, image >> 2
    finally:
        found.close()
    return States(states, versions)


def _version(listed: Listed) -> int:
    return crc32(f"{listed.size} {listed.crc32c or listed.changed}".encode())
