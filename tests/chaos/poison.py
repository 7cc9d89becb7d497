"""A worker that dies of certain prompts: promptmill's own, but that `poison` on the device kills the process.

`celery -A tests.chaos.poison worker --pool threads`
"""

import os
import signal
from collections.abc import Sequence
from typing import Any

import promptmill.worker.pull
import promptmill.worker.render
from promptmill.producer.queue.queue import Claim
from promptmill.worker.app import make_app
from promptmill.worker.checks import Checks
from promptmill.worker.settings import WorkerSettings

really_start = promptmill.worker.render.start


def start(program: Any, claims: Sequence[Claim], checks: Checks) -> promptmill.worker.render.Batch:
    """Starts the batch, unless one of its jobs is poison."""
    if any("poison" in claim.job.prompt for claim in claims):
        os.kill(os.getpid(), signal.SIGKILL)
    return really_start(program, claims, checks)


promptmill.worker.pull.start = start  # type: ignore[attr-defined]  # where its name is looked up
app = make_app(WorkerSettings.from_env())
