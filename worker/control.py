"""What Celery's remote control means here, where it differs: `celery control ...`, and Flower's buttons.

revoke          also kept in Redis, for workers that do not run now; a run's name cancels the run
pool_shrink     refused with a sentence, as pool_grow: the pool encodes and uploads images
stats           without the sentinels' password, which Celery has in its transport options
"""

from collections.abc import Sequence
from typing import Any

from celery.app import control as celery_control
from celery.app.utils import filter_hidden_settings
from celery.utils.functional import maybe_list
from celery.worker.control import control_command, inspect_command

from promptmill.producer.broker import client_of
from promptmill.producer.job import is_job_id
from promptmill.producer.queue.control import cancel
from promptmill.producer.queue.ledger import Ledger
from promptmill.producer.queue.revokes import Revokes

NO_OTHER_SIZE = (
    "promptmill's pool encodes and uploads images, and has the size of --concurrency from its start on. "
    "To have this worker claim less: cancel_consumer promptmill, and add_consumer promptmill to go on"
)


class Control(celery_control.Control):
    """Keeps revokes before it sends them."""

    def broadcast(self, command: str, arguments: dict[str, Any] | None = None, **options: Any) -> Any:
        if command in ("revoke", "terminate") and arguments:
            self._keep(maybe_list(arguments.get("task_id")) or [])
        return super().broadcast(command, arguments, **options)

    def _keep(self, ids: Sequence[str]) -> None:
        client = client_of(self.app.conf.promptmill.broker)
        runs = [name for name in ids if Ledger(client).digest(name) is not None]
        for run in runs:
            cancel(client, run)
        Revokes(client).add(name for name in ids if name not in runs and is_job_id(name))


@control_command(args=[("n", int)], signature="[N=1]")
def pool_grow(state: Any, n: int = 1, **kwargs: Any) -> dict[str, str]:
    """Refuse to grow the pool."""
    return {"error": NO_OTHER_SIZE}


@control_command(args=[("n", int)], signature="[N=1]")
def pool_shrink(state: Any, n: int = 1, **kwargs: Any) -> dict[str, str]:
    """Refuse to shrink the pool."""
    return {"error": NO_OTHER_SIZE}


@inspect_command()
def stats(state: Any, **kwargs: Any) -> dict[str, Any]:
    """Tell what Celery tells of a worker."""
    told: dict[str, Any] = state.consumer.controller.stats()
    if isinstance(told.get("broker"), dict):  # "N/A" where there is no connection
        told["broker"] = filter_hidden_settings(told["broker"])
    return told
