"""What `render` looks at while its worker works: how far the run is, what is in trouble, who is left."""

import time
from collections.abc import Callable, Container, Mapping

import click
import redis

from promptmill.local_worker import LocalWorker, WorkerFailed
from promptmill.producer.queue.ledger import Ledger, RunStatus
from promptmill.producer.queue.workers import WorkerReport, Workers
from promptmill.producer.words import count
from promptmill.progress import Progress
from promptmill.verbs.runs import go_on_without_redis

POLL_S = 0.1


def wait(
    client: redis.Redis, run: str, worker: LocalWorker, missing: Mapping[str, int], *, waits_for_redis: bool
) -> RunStatus:
    """Until every job of the run is done or failed. `missing` counts the images to render by model.

    A Redis of others' may go and come; one of our own does not come back. Raises WorkerFailed when nothing is left but
    what the worker cannot render, or the worker itself has stopped.
    """
    ledger, workers = Ledger(client), Workers(client)
    with Progress("images", ledger.status(run).images) as progress:
        troubles = Troubles(progress.say)

        def look() -> RunStatus:
            status = ledger.status(run)
            progress.to(status.done + status.failed)
            worker.watch(status.done + status.failed)
            for report in workers.alive():
                if report.name == worker.name:
                    progress.note(f"{report.state}, {status.failed} failed" if status.failed else report.state)
                    _give_up_if_nothing_else_is_left(report, status, missing)
                    troubles.tell(report.problems)
            return status

        while not (status := go_on_without_redis(look, progress.say) if waits_for_redis else look()).finished:
            time.sleep(POLL_S)
        troubles.end_of_run(missing)
    return status


def wait_for_report(worker: LocalWorker, client: redis.Redis) -> None:
    """Wait until the worker has its devices, so that one that cannot start leaves no run. Raises WorkerFailed."""
    while not any(report.name == worker.name and report.state != "starting" for report in Workers(client).alive()):
        worker.watch(0)
        time.sleep(POLL_S)


class Troubles:
    """Says once what is in trouble, an output or a model, and once that it is over."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._told: set[str] = set()

    def tell(self, problems: Mapping[str, str]) -> None:
        """Tell what is new in `problems` (model or output -> what is wrong), and what is gone from it."""
        for what in sorted(problems.keys() - self._told):
            self._say(click.style(f"in trouble: {what}: {problems[what]}", fg="yellow"))
        for what in sorted(self._told - problems.keys()):
            self._say(f"{what} works again")
        self._told = set(problems)

    def end_of_run(self, models: Container[str]) -> None:
        """Tell that the outputs work again: each has taken its last image, perhaps before the worker's next report."""
        self.tell({what: "" for what in self._told if what in models})


def _give_up_if_nothing_else_is_left(report: WorkerReport, status: RunStatus, missing: Mapping[str, int]) -> None:
    broken = {what: why for what, why in report.problems.items() if what in missing}
    if broken and status.left <= sum(missing[model] for model in broken):
        reasons = [f"cannot render with {model}: {why}" for model, why in broken.items()]
        raise WorkerFailed("\n".join([*reasons, f"{status.done} of {count(status.images, 'image')} are there"]))
