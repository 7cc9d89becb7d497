"""A worker that dies of certain prompts and certain shapes: promptmill's own, but that the process is killed

    by `poison` on the device,
    by a program 72 pixels wide while it is compiled,
    and that it takes seconds to compile one 80 pixels wide.

`celery -A tests.chaos.poison worker --pool threads`
"""

import os
import signal
import time
from collections.abc import Sequence
from typing import Any

import promptmill.worker.programs
import promptmill.worker.pull
import promptmill.worker.render
from promptmill.producer.job import Shape
from promptmill.producer.queue.queue import Claim
from promptmill.worker.app import make_app
from promptmill.worker.checks import Checks
from promptmill.worker.programs import Programs
from promptmill.worker.sdxl.program import AnyProgram
from promptmill.worker.settings import WorkerSettings

really_start = promptmill.worker.render.start
really_make = Programs.make

DEADLY_WIDTH, SLOW_WIDTH = 72, 80  # pixels
SLOW_S = 20.0


def start(program: Any, claims: Sequence[Claim], checks: Checks) -> promptmill.worker.render.Batch:
    """Starts the batch, unless one of its jobs is poison."""
    if any("poison" in claim.job.prompt for claim in claims):
        os.kill(os.getpid(), signal.SIGKILL)
    return really_start(program, claims, checks)


def make(self: Programs, shape: Shape) -> AnyProgram:
    """Makes the program, unless the shape is a deadly one."""
    if shape.width == DEADLY_WIDTH:
        os.kill(os.getpid(), signal.SIGKILL)
    if shape.width == SLOW_WIDTH:
        time.sleep(SLOW_S)
    return really_make(self, shape)


promptmill.worker.pull.start = start  # type: ignore[attr-defined]  # where its name is looked up
Programs.make = make  # type: ignore[method-assign]
app = make_app(WorkerSettings.from_env())
