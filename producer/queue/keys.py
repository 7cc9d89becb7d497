"""Every key that promptmill has in Redis. scripts/lib.lua spells those that scripts use; a test compares.

promptmill:runs                 sorted set   run names, scored by their creation (seconds since the epoch)
promptmill:run:RUN              hash         a run's settings, state and counts: see ledger.py
promptmill:run:RUN:done         bitmap       bit i: the job at index i has its image
promptmill:run:RUN:failed       bitmap       bit i: the job at index i has failed
promptmill:run:RUN:failures     hash         index -> reason, as JSON {"id", "reason"}
promptmill:run:RUN:shapes       set          keys of the shapes of which the run has a stream
promptmill:queue:RUN:SHAPE      stream       the run's unsettled jobs of a shape; fields: i (index in the run), job
                                             (JSON of the fields that the run does not share), again (where it was
                                             entered anew)
promptmill:shapes               set          keys of the shapes that have a stream of any run
promptmill:shape:SHAPE          hash         served_at (microseconds, when a job was last claimed, or the first came)
promptmill:turns:SHAPE          sorted set   the runs that have jobs of this shape to claim, the next one first
promptmill:held:SHAPE           sorted set   those whose jobs are all with workers, by when to look again whether one
                                             is dead (microseconds): a thousand such runs cost a look for work nothing
promptmill:compiling:SHAPE      hash         who is making the shape's program: see compiling.py
promptmill:workers              hash         what each worker says of itself: see workers.py
promptmill:workers:swept        string       a worker swept what dead ones left behind; expires when it is time again
promptmill:revoked              sorted set   job ids that were revoked: see revokes.py
promptmill:malformed            list         the last entries that could not be read, newest first: see malformed.py
promptmill:malformed:count      counter      how many there were
promptmill:probed               string       written by `promptmill doctor`, to see that it may; expires at once
_kombu.binding.celery.pidbox    set          Celery's own: where each worker listens for commands. Celery does not take
                                             out those of dead workers
"""

from promptmill.producer.job import Shape

GROUP = "workers"
"""The consumer group of each stream."""

RUNS = "promptmill:runs"
SHAPES = "promptmill:shapes"
WORKERS = "promptmill:workers"
WORKERS_SWEPT = "promptmill:workers:swept"
PIDBOX = "_kombu.binding.celery.pidbox"
REVOKED_JOBS = "promptmill:revoked"
MALFORMED = "promptmill:malformed"
MALFORMED_COUNT = "promptmill:malformed:count"
PROBED = "promptmill:probed"


def run_key(run: str) -> str:
    return f"promptmill:run:{run}"


def done_key(run: str) -> str:
    return f"{run_key(run)}:done"


def failed_key(run: str) -> str:
    return f"{run_key(run)}:failed"


def failures_key(run: str) -> str:
    return f"{run_key(run)}:failures"


def shapes_key(run: str) -> str:
    return f"{run_key(run)}:shapes"


def queue_key(run: str, shape: Shape) -> str:
    return f"promptmill:queue:{run}:{shape.key}"


def served_key(shape: Shape) -> str:
    return f"promptmill:shape:{shape.key}"


def turns_key(shape: Shape) -> str:
    return f"promptmill:turns:{shape.key}"


def held_key(shape: Shape) -> str:
    return f"promptmill:held:{shape.key}"


def compiling_key(shape: Shape) -> str:
    return f"promptmill:compiling:{shape.key}"


def unmade_key(shape: Shape) -> str:
    return f"promptmill:unmade:{shape.key}"
