"""Which indexes of a run have their image: a byte per index, also for rows that mean the same job."""

from promptmill.producer.layout import Look
from promptmill.producer.outputs.output import Output
from promptmill.producer.plan import Plan
from promptmill.producer.plan_builder import SHAPE_BITS
from promptmill.producer.presence import look_at_images
from promptmill.producer.spool import Heaps

MISSING, DONE, BROKEN = 0, 1, 2

_STATES = {Look.OURS: DONE, Look.BROKEN: BROKEN, Look.FOREIGN: BROKEN}


def image_states(output: Output, plan: Plan) -> bytearray:
    """MISSING, DONE or BROKEN per index, by a listing. Raises OutputError."""
    states, found = bytearray(plan.jobs), Heaps()
    try:
        for job_id, look in look_at_images(output):
            found.add(bytes.fromhex(job_id), _STATES[look])
        for first_byte in range(256) if len(found) else ():
            there = dict(found.heap(first_byte))
            for digest, number in plan.heaps.heap(first_byte):
                states[number >> SHAPE_BITS] = there.get(digest, MISSING)
    finally:
        found.close()
    return states
