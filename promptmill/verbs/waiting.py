"""Why jobs wait: of each shape's runs, what keeps workers from them now."""

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from promptmill.producer.queue.priorities import PRIORITIES
from promptmill.verbs.rates import duration

if TYPE_CHECKING:
    from promptmill.producer.job import Shape
    from promptmill.producer.queue.ledger import RunStatus
    from promptmill.producer.queue.workers import WorkerReport

SHOWN_RUNS = 3
GOES_ON = "out of memory: it goes on"  # in smaller batches: worker/host.py


@dataclass(frozen=True)
class Why:
    """A reason: its `kind` for programs, a sentence for people, and the runs that it holds up (none: all)."""

    kind: str
    text: str
    runs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Waiting:
    """The unsettled jobs of one shape, of one run: how many wait, and how many workers hold."""

    status: "RunStatus"
    waiting: int
    held: int


def queues(client: Any, workers: Sequence["WorkerReport"]) -> list[dict[str, Any]]:
    """What waits, by shape, and why, as JSON values."""
    from promptmill.producer.errors import LedgerError
    from promptmill.producer.queue.ledger import Ledger
    from promptmill.producer.queue.queue import JobQueue

    found, ledger = JobQueue(client).waiting(), Ledger(client)
    known: dict[str, RunStatus] = {}
    for run in {run for runs in found.values() for run, _, _ in runs}:
        with contextlib.suppress(LedgerError):  # it was purged since
            known[run] = ledger.status(run)
    of = {shape: [Waiting(known[one[0]], *one[1:]) for one in runs if one[0] in known] for shape, runs in found.items()}
    everything = [one for runs in of.values() for one in runs]
    return [
        {
            "shape": shape.key,
            "waiting": sum(one.waiting for one in runs),
            "held": sum(one.held for one in runs),
            "why": [asdict(why) for why in reasons(shape, runs, everything, workers)],
        }
        for shape, runs in of.items()
    ]


def reasons(
    shape: "Shape", runs: Iterable[Waiting], everything: Iterable[Waiting], workers: Sequence["WorkerReport"]
) -> Iterator[Why]:
    """Why jobs of a shape wait, of these runs; `everything` is what waits of all shapes."""
    waiting = [one for one in runs if one.waiting]
    paused = tuple(one.status.run for one in waiting if one.status.state == "paused")
    if paused:
        yield Why("paused", f"paused: {_names(paused)}", paused)
    going = [one for one in waiting if one.status.state != "paused"]
    if not going:
        return
    if not workers:
        yield Why("no worker", "no worker is there")
        return
    if why := _unloadable(shape, workers):
        yield why
        return
    yield from _away(going, workers)
    yield from _compiling(shape, workers)
    yield from _behind(going, everything)


def _unloadable(shape: "Shape", workers: Sequence["WorkerReport"]) -> Why | None:
    for name in (shape.key, shape.model):
        told = [worker.problems.get(name, GOES_ON) for worker in workers]
        if not any(why.startswith(GOES_ON) for why in told):
            return Why("model", f"no worker can render with it: {told[0]}")
    return None


def _away(going: Sequence[Waiting], workers: Sequence["WorkerReport"]) -> Iterator[Why]:
    for output in sorted({one.status.output for one in going}):
        told = [worker.problems.get(output) for worker in workers]
        if all(told):
            runs = tuple(one.status.run for one in going if one.status.output == output)
            yield Why("output", f"the output of {_names(runs)} is away: {told[0]}", runs)


def _compiling(shape: "Shape", workers: Sequence["WorkerReport"]) -> Iterator[Why]:
    for worker in workers:
        if worker.compiling == shape.key:
            since = time.strftime("%H:%M:%S", time.localtime(time.time() - worker.compiling_s))
            yield Why("compiling", f"compiling by {worker.name} since {since} ({duration(worker.compiling_s)})")


def _behind(going: Sequence[Waiting], everything: Iterable[Waiting]) -> Iterator[Why]:
    others = [one.status for one in everything if one.status.state != "paused"]
    highest = max((PRIORITIES[status.priority] for status in others), default=0)
    held_up = tuple(one.status.run for one in going if PRIORITIES[one.status.priority] < highest)
    if held_up:
        before = tuple(sorted({status.run for status in others if PRIORITIES[status.priority] == highest}))
        yield Why("priority", f"{_names(held_up)} behind a higher priority: {_names(before)}", held_up)


def _names(runs: Sequence[str]) -> str:
    more = len(runs) - SHOWN_RUNS
    return ", ".join(runs[:SHOWN_RUNS]) + (f" and {more} more" if more > 0 else "")


def lines(queue: Mapping[str, Any]) -> list[str]:
    """A shape's queue for a person."""
    first = f"queue {queue['shape']}: {queue['waiting']} waiting, {queue['held']} with workers"
    return [first, *(f"  {why['text']}" for why in queue["why"])]
