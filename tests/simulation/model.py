"""The protocol by which a job moves, small and whole: every interleaving of two workers, three jobs and three faults.

A state is where each job is, what each worker holds, and what may still befall them. `moves` is the table of who may
move a job and when; `explore` goes through every state that can be reached, and looks whether anything may not be:

    a job's bit is set and its object is missing       (safety: done means there)
    a job is settled and waits too                     (safety: in one place)
    a state without a way out in which a job has no end (liveness: nothing is stuck)

It is the protocol, not the code: tests/simulation/test_model.py plays the model's moves on the real queue, and
compares each state.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

MAX_DELIVERIES = 3
WAITS, HELD, DONE, FAILED = "waits", "held", "done", "failed"
NOBODY = "released"


@dataclass(frozen=True)
class Job:
    """A job as Redis and the output have it."""

    where: str = WAITS
    owner: str = ""
    """Who has it in Redis, of what is held."""
    deliveries: int = 0
    expired: bool = False
    """Whether its lease has run out."""
    written: bool = False
    """Whether its object is there."""


@dataclass(frozen=True)
class Worker:
    """A worker's own memory. `holds` are indexes of jobs; those it has `wrote` it may settle."""

    alive: bool = True
    holds: frozenset[int] = frozenset()
    wrote: frozenset[int] = frozenset()


@dataclass(frozen=True)
class State:
    jobs: tuple[Job, ...]
    workers: tuple[Worker, ...]
    faults: int
    """How many may still happen."""

    def with_job(self, index: int, **changes: object) -> "State":
        job = replace(self.jobs[index], **changes)  # type: ignore[arg-type]
        return replace(self, jobs=self.jobs[:index] + (job,) + self.jobs[index + 1 :])

    def with_worker(self, number: int, **changes: object) -> "State":
        worker = replace(self.workers[number], **changes)  # type: ignore[arg-type]
        return replace(self, workers=self.workers[:number] + (worker,) + self.workers[number + 1 :])


Move = tuple[str, int, int]
"""What happens, to which worker, to which job."""

NAMES = ("a", "b", "c", "d")
"""Of the workers in Redis: a restarted worker is another consumer, and here the same name with an empty memory."""


def start(workers: int = 2, jobs: int = 3, faults: int = 3) -> State:
    return State((Job(),) * jobs, (Worker(),) * workers, faults)


def _may_claim(state: State, number: int, index: int) -> bool:
    job, worker = state.jobs[index], state.workers[number]
    own = job.owner == NAMES[number] and index in worker.holds
    return worker.alive and not own and (job.where == WAITS or (job.where == HELD and job.expired))


def _claim(state: State, number: int, index: int) -> State:
    job, worker = state.jobs[index], state.workers[number]
    if job.deliveries >= MAX_DELIVERIES:  # it was had too often: failed by whoever finds it
        return state.with_job(index, where=FAILED, owner="", expired=False)
    taken = state.with_job(
        index, where=HELD, owner=NAMES[number], deliveries=job.deliveries + 1, expired=False
    )
    return taken.with_worker(number, holds=worker.holds | {index}, wrote=worker.wrote - {index})


def _holds(state: State, number: int, index: int) -> bool:
    return state.workers[number].alive and index in state.workers[number].holds


def _renew(state: State, number: int, index: int) -> State:
    """Of what another has by now, the worker goes on all the same: the output takes one of the two."""
    return state.with_job(index, expired=False)


def _write(state: State, number: int, index: int) -> State:
    """Creates the object, or finds that it is there."""
    written = state.with_job(index, written=True)
    return written.with_worker(number, wrote=state.workers[number].wrote | {index})


def _leaves(state: State, number: int, index: int) -> State:
    worker = state.workers[number]
    return state.with_worker(number, holds=worker.holds - {index}, wrote=worker.wrote - {index})


def _settle(state: State, number: int, index: int) -> State:
    """By anybody who has written the object, whoever holds the job by now; of what is over nothing changes."""
    settled = _leaves(state, number, index)
    if state.jobs[index].where in (WAITS, HELD, FAILED):
        settled = settled.with_job(index, where=DONE, owner="", expired=False)
    return settled


def _release(state: State, number: int, index: int) -> State:
    """Given back, through no fault of the job: the delivery does not count. Of what another has nothing changes."""
    job, released = state.jobs[index], _leaves(state, number, index)
    if job.where == HELD and job.owner == NAMES[number]:
        released = released.with_job(index, owner=NOBODY, deliveries=job.deliveries - 1, expired=True)
    return released


def _expire(state: State, number: int, index: int) -> State:
    """Its lease runs out: its worker is dead, or could not renew in time, which is a fault."""
    alive = _holds(state, number, index)
    return replace(state.with_job(index, expired=True), faults=state.faults - alive)


def _may_expire(state: State, number: int, index: int) -> bool:
    job = state.jobs[index]
    if job.where != HELD or job.owner != NAMES[number] or job.expired:
        return False
    return not _holds(state, number, index) or state.faults > 0


def _crash(state: State, number: int, index: int) -> State:
    """SIGKILL: of what it held only Redis knows. The supervisor starts it again."""
    return replace(state.with_worker(number, holds=frozenset(), wrote=frozenset()), faults=state.faults - 1)


def _may_crash(state: State, number: int, index: int) -> bool:
    return index == 0 and state.faults > 0 and bool(state.workers[number].holds)


RULES: Mapping[str, tuple[Callable[[State, int, int], bool], Callable[[State, int, int], State]]] = {
    "claim": (_may_claim, _claim),
    "renew": (
        lambda s, n, i: _holds(s, n, i) and s.jobs[i].owner == NAMES[n] and s.jobs[i].where == HELD and s.jobs[i].expired,
        _renew,
    ),
    "write": (lambda s, n, i: _holds(s, n, i) and i not in s.workers[n].wrote, _write),
    "settle": (lambda s, n, i: _holds(s, n, i) and i in s.workers[n].wrote, _settle),
    "release": (lambda s, n, i: _holds(s, n, i) and i not in s.workers[n].wrote and s.faults > 0, lambda s, n, i: replace(_release(s, n, i), faults=s.faults - 1)),
    "expire": (_may_expire, _expire),
    "crash": (_may_crash, _crash),
}
"""Who may move a job: a move's name -> when it may be made, and what it does."""


def moves(state: State, rules: Mapping[str, object] = RULES) -> Iterator[tuple[Move, State]]:
    """Every move that can be made, and the state after it."""
    for name, (may, make) in rules.items():  # type: ignore[misc]
        for number in range(len(state.workers)):
            for index in range(len(state.jobs)):
                if may(state, number, index):
                    yield (name, number, index), make(state, number, index)


def wrong(state: State) -> str | None:
    """What may not be in any state; None where all is well."""
    for index, job in enumerate(state.jobs):
        if job.where == DONE and not job.written:
            return f"job {index} is done, and has no object"
        if job.where in (DONE, FAILED) and job.owner:
            return f"job {index} is over, and {job.owner} has it"
        if job.deliveries > MAX_DELIVERIES or job.deliveries < 0:
            return f"job {index} was delivered {job.deliveries} times"
    return None


def is_over(state: State) -> bool:
    return all(job.where in (DONE, FAILED) for job in state.jobs)


@dataclass(frozen=True)
class Explored:
    """All states that can be reached: how many, how many moves between them, and the first that may not be."""

    states: int
    moves: int
    wrong: str | None
    way: tuple[Move, ...]
    """The moves to that state."""


def explore(first: State, rules: Mapping[str, object] = RULES) -> Explored:
    """Every state that can be reached, breadth first: the way to the first wrong one is a shortest."""
    came: dict[State, tuple[State, Move] | None] = {first: None}
    backward: dict[State, list[State]] = {}
    waiting, made = deque([first]), 0
    while waiting:
        state = waiting.popleft()
        if said := wrong(state):
            return Explored(len(came), made, said, way_to(state, came))
        for move, after in moves(state, rules):
            made += 1
            backward.setdefault(after, []).append(state)
            if after not in came:
                came[after] = state, move
                waiting.append(after)
    stuck = _stuck(came, backward)
    if stuck is not None:
        return Explored(len(came), made, "no way leads from here to an end", way_to(stuck, came))
    return Explored(len(came), made, None, ())


def _stuck(came: Mapping[State, object], backward: Mapping[State, list[State]]) -> State | None:
    """A state from which no moves lead to one where all is over."""
    good = {state for state in came if is_over(state)}
    waiting = deque(good)
    while waiting:
        for before in backward.get(waiting.popleft(), ()):
            if before not in good:
                good.add(before)
                waiting.append(before)
    return next((state for state in came if state not in good), None)


def way_to(state: State, came: Mapping[State, tuple[State, Move] | None]) -> tuple[Move, ...]:
    way: list[Move] = []
    while (step := came[state]) is not None:
        state, move = step
        way.append(move)
    return tuple(reversed(way))
