"""A worker that dies of certain prompts and certain shapes: promptmill's own, but that

    `poison` on the device kills the process,
    `hang` never comes back from the device,
    `large` needs more memory than there is in a batch of more than one per device,
    a program 72 pixels wide kills the process while it is compiled,
    and one 80 pixels wide takes seconds to compile.

`celery -A tests.chaos.poison worker --pool threads`; no test imports it, as it changes whoever does.
"""

import dataclasses
import os
import signal
import threading
import time
from collections.abc import Sequence
from typing import Any

import jax

import promptmill.worker.programs
import promptmill.worker.pull
import promptmill.worker.render
from promptmill.producer.job import Shape
from promptmill.producer.queue.queue import Claim
from promptmill.worker.app import make_app
from promptmill.worker.checks import Checks, Findings
from promptmill.worker.program import AnyProgram
from promptmill.worker.programs import Programs
from promptmill.worker.settings import WorkerSettings
from tests.chaos.widths import DEADLY_WIDTH, SLOW_S, SLOW_WIDTH

really_start = promptmill.worker.render.start
really_make = Programs.make


def start(program: Any, claims: Sequence[Claim], checks: Checks) -> promptmill.worker.render.Batch:
    """Starts the batch, unless one of its jobs is poison."""
    if any("poison" in claim.job.prompt for claim in claims):
        os.kill(os.getpid(), signal.SIGKILL)
    batch = really_start(program, claims, checks)
    if any("hang" in claim.job.prompt for claim in claims):
        return dataclasses.replace(batch, checks=Hanging({}))
    if any("large" in claim.job.prompt for claim in claims) and program.batch > jax.local_device_count():
        return dataclasses.replace(batch, checks=OutOfMemory({}))
    return batch


class Hanging(Checks):
    """A device that never answers."""

    def finish(self, started: Any, pixels: Any) -> list[Findings]:
        threading.Event().wait()
        return []


class OutOfMemory(Checks):
    """A device without memory, as XLA says it."""

    def finish(self, started: Any, pixels: Any) -> list[Findings]:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 68719476736 bytes.")


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
