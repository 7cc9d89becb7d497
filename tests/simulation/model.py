"""The protocol by which a job moves, small and whole: every interleaving of two workers, three jobs and three faults.

A state is where each job is, what each worker remembers of it, and how many faults may still happen. RULES says who may
move a job, when, and where to. `explore` goes through every state that can be reached, and looks for what may not be:

    a job is done, and its object is missing         done means there
    a job is over, and somebody has it               a job is in one place
    no moves lead to a state where all is over       nothing is stuck

It is the protocol and not the code: test_model.py plays its moves on the real queue, and compares after each.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

MAX_DELIVERIES = 3
WAITS, HELD, DONE, FAILED = "waits", "held", "done", "failed"
NOTHING, HOLDS, WROTE = "", "holds", "wrote"
NOBODY = -1


@dataclass(frozen=True, order=True)
class Job:
    """A job as Redis has it, as the output has it, and as each worker remembers it."""

    where: str = WAITS
    owner: int = NOBODY
    """The worker that has it, of what is held; NOBODY where it was given back."""
    deliveries: int = 0
    expired: bool = False
    """Whether its lease has run out."""
    written: bool = False
    """Whether its object is there."""
    memory: tuple[str, ...] = (NOTHING, NOTHING)

    def remembered(self, worker: int, what: str) -> "Job":
        return replace(self, memory=tuple(what if n == worker else m for n, m in enumerate(self.memory)))


@dataclass(frozen=True)
class State:
    jobs: tuple[Job, ...]
    faults: int
    """How many may still happen."""

    def canonical(self) -> "State":
        """One of all states that differ in the names of workers and jobs alone."""
        workers = range(len(self.jobs[0].memory))
        named = (tuple(sorted(_renamed(job, order) for job in self.jobs)) for order in permutations(workers))
        return State(min(named), self.faults)


def _renamed(job: Job, order: tuple[int, ...]) -> Job:
    owner = job.owner if job.owner == NOBODY else order.index(job.owner)
    return replace(job, owner=owner, memory=tuple(job.memory[worker] for worker in order))


@dataclass(frozen=True)
class Rule:
    """A move of one worker and one job."""

    may: Callable[[Job, int], bool]
    """Whether the worker may make it, or it may befall the worker."""
    make: Callable[[Job, int], Job]
    is_fault: Callable[[Job, int], bool] = lambda job, worker: False


def _may_claim(job: Job, worker: int) -> bool:
    """What waits, and what a worker had whose lease is over; its own is renewed, and not claimed."""
    own = job.owner == worker and job.memory[worker] != NOTHING
    return not own and (job.where == WAITS or (job.where == HELD and job.expired))


def _claim(job: Job, worker: int) -> Job:
    if job.deliveries >= MAX_DELIVERIES:  # it was had too often: whoever finds it gives it up
        return replace(job, where=FAILED, owner=NOBODY, expired=False)
    taken = replace(job, where=HELD, owner=worker, deliveries=job.deliveries + 1, expired=False)
    return taken.remembered(worker, HOLDS)


def _settle(job: Job, worker: int) -> Job:
    """By whoever has written the object, whoever has the job by now. One that had failed is done after all."""
    return replace(job, where=DONE, owner=NOBODY, expired=False).remembered(worker, NOTHING)


def _release(job: Job, worker: int) -> Job:
    """Through no fault of the job: the delivery does not count. What another has by now stays with it."""
    if job.where == HELD and job.owner == worker:
        job = replace(job, owner=NOBODY, deliveries=job.deliveries - 1, expired=True)
    return job.remembered(worker, NOTHING)


def _retry(job: Job, worker: int) -> Job:
    """Given back, and the delivery counts: its batch failed. On its last it is given up."""
    if _has(job, worker) and job.deliveries >= MAX_DELIVERIES:
        return replace(job, where=FAILED, owner=NOBODY, expired=False).remembered(worker, NOTHING)
    if _has(job, worker):
        job = replace(job, owner=NOBODY, expired=True)
    return job.remembered(worker, NOTHING)


def _remembers(job: Job, worker: int) -> bool:
    return job.memory[worker] != NOTHING


def _has(job: Job, worker: int) -> bool:
    return job.where == HELD and job.owner == worker


RULES: Mapping[str, Rule] = {
    "claim": Rule(_may_claim, _claim),
    "renew": Rule(lambda j, w: _has(j, w) and _remembers(j, w), lambda j, w: replace(j, expired=False)),
    "write": Rule(lambda j, w: j.memory[w] == HOLDS, lambda j, w: replace(j, written=True).remembered(w, WROTE)),
    "settle": Rule(lambda j, w: j.memory[w] == WROTE, _settle),
    "release": Rule(lambda j, w: j.memory[w] == HOLDS, _release, lambda j, w: True),
    "retry": Rule(lambda j, w: j.memory[w] == HOLDS and _has(j, w), _retry, lambda j, w: True),
    "expire": Rule(lambda j, w: _has(j, w) and not j.expired, lambda j, w: replace(j, expired=True), _remembers),
}
"""Who may move a job. A lease that is renewed in time does not run out: that it does is a fault; a dead worker's is
none. Beside these a worker may crash, which is a fault: it remembers nothing, and another of its name is started."""

Move = tuple[str, int, int]
"""What happens, by or to which worker, and to which job; of a crash the job means nothing."""


def start(workers: int = 2, jobs: int = 3, faults: int = 3) -> State:
    return State((Job(memory=(NOTHING,) * workers),) * jobs, faults)


def moves(state: State, rules: Mapping[str, Rule] = RULES) -> Iterator[tuple[Move, State]]:
    """Every move that can be made, and the state after it."""
    workers = range(len(state.jobs[0].memory))
    for index, job in enumerate(state.jobs):
        for name, rule in rules.items():
            for worker in workers:
                if rule.may(job, worker) and state.faults >= (cost := int(rule.is_fault(job, worker))):
                    jobs = (*state.jobs[:index], rule.make(job, worker), *state.jobs[index + 1 :])
                    yield (name, worker, index), State(jobs, state.faults - cost)
    for worker in workers:
        if state.faults and any(_remembers(job, worker) for job in state.jobs):
            jobs = tuple(job.remembered(worker, NOTHING) for job in state.jobs)
            yield ("crash", worker, 0), State(jobs, state.faults - 1)


def wrong(state: State) -> str | None:
    """What may not be in any state; None where all is well."""
    for job in state.jobs:
        if job.where == DONE and not job.written:
            return "a job is done, and has no object"
        if job.where in (DONE, FAILED) and job.owner != NOBODY:
            return "a job is over, and somebody has it"
        if not 0 <= job.deliveries <= MAX_DELIVERIES:
            return f"a job was delivered {job.deliveries} times"
    return None


def is_over(state: State) -> bool:
    return all(job.where in (DONE, FAILED) for job in state.jobs)


@dataclass(frozen=True)
class Explored:
    """All states that can be reached, but for the names of workers and jobs; and what is wrong with one of them."""

    states: int
    moves: int
    wrong: str | None
    way: tuple[Move, ...] = ()
    """A shortest way there, by moves."""


def explore(first: State, rules: Mapping[str, Rule] = RULES) -> Explored:
    """Every state that can be reached, the nearest first."""
    came: dict[State, Any] = {first.canonical(): None}
    before: dict[State, list[State]] = {}
    waiting, made = deque(came), 0
    while waiting:
        state = waiting.popleft()
        if said := wrong(state):
            return Explored(len(came), made, said, _way_to(state, came))
        for move, after in moves(state, rules):
            found, made = after.canonical(), made + 1
            before.setdefault(found, []).append(state)
            if found not in came:
                came[found] = state, move
                waiting.append(found)
    stuck = _stuck(came, before)
    if stuck is not None:
        return Explored(len(came), made, "nothing leads to an end", _way_to(stuck, came))
    return Explored(len(came), made, None)


def _stuck(came: Mapping[State, Any], before: Mapping[State, list[State]]) -> State | None:
    """A state from which no moves lead to one where all is over."""
    good = {state for state in came if is_over(state)}
    waiting = deque(good)
    while waiting:
        for state in before.get(waiting.popleft(), ()):
            if state not in good:
                good.add(state)
                waiting.append(state)
    return next((state for state in came if state not in good), None)


def _way_to(state: State, came: Mapping[State, Any]) -> tuple[Move, ...]:
    way: list[Move] = []
    while came[state] is not None:
        state, move = came[state]
        way.append(move)
    return tuple(reversed(way))


if __name__ == "__main__":
    found = explore(start())
    print(f"2 workers, 3 jobs, 3 faults: {found.states} states, {found.moves} moves, {found.wrong or 'all well'}")
