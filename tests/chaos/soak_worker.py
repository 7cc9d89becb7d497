"""promptmill's own worker, but that it writes down what it begins to render.

`celery -A tests.chaos.soak_worker worker --pool threads`. PROMPTMILL_SOAK_LOG names the file: lines of time, process id
and job id. No test imports this, as it changes whoever does.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import promptmill.worker.pull
import promptmill.worker.render
from promptmill.producer.queue.queue import Claim
from promptmill.worker.app import make_app
from promptmill.worker.checks import Checks
from promptmill.worker.settings import WorkerSettings

really_start = promptmill.worker.render.start


def start(program: Any, claims: Sequence[Claim], checks: Checks) -> promptmill.worker.render.Batch:
    """Starts the batch, and says so first."""
    lines = "".join(f"{time.time():.3f} {os.getpid()} {claim.job.id}\n" for claim in claims)
    with Path(os.environ["PROMPTMILL_SOAK_LOG"]).open("a") as file:
        file.write(lines)
    return really_start(program, claims, checks)


promptmill.worker.pull.start = start  # type: ignore[attr-defined]  # where its name is looked up
app = make_app(WorkerSettings.from_env())
