"""The story of one world: what befalls it for a while, and then a calm in which everything must come to its end."""

import random
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import redis

from promptmill.producer.broker import client_of
from promptmill.producer.errors import PromptmillError
from promptmill.producer.outputs.open import open_output
from promptmill.producer.queue.control import cancel, pause, set_priority, unpause
from promptmill.producer.queue.priorities import PRIORITIES
from promptmill.producer.submit import retry, submit
from tests.simulation.faults import Faults, draw
from tests.simulation.invariants import Violation, bits
from tests.simulation.server import VirtualRedis
from tests.simulation.threads import Process, Scheduler
from tests.simulation.world import LEASE_S, OUTPUT, World

STORM_S = 40.0
"""For how long things happen."""
CALM_S = 1200.0
"""For how long after that all must be over. Of the pauses between tries some are minutes."""

Act = Callable[[World], None]


@dataclass(frozen=True)
class Outcome:
    """How a story ended. `virtual_s` and `real_s` are seconds."""

    seed: int
    failure: str | None
    faults: Faults
    jobs: int
    checks: int
    rendered_again: int
    virtual_s: float
    real_s: float
    trace: list[str]
    requests: dict[str, int]


def play(seed: int, server: VirtualRedis, enter: Callable[[World], None], faults: Faults | None = None) -> Outcome:
    """`enter` is told the world before anything happens in it."""
    started = time.perf_counter()
    chance = random.Random(f"story {seed}")
    faults = draw(chance) if faults is None else faults
    runs = [(f"r{number}", chance.randint(1, 7)) for number in range(chance.choice([1, 1, 2]))]
    world = World(seed, faults, server, runs)
    enter(world)
    failure = None
    try:
        _play(world, chance.randint(1, 3))
    except Violation as violation:
        failure = str(violation)
    except Exception as error:  # noqa: BLE001 - a thread of the code under test died of it
        failure = f"{type(error).__name__}: {error}"
        world.trace += traceback.format_exception(error)
    end_s = world.scheduler.now
    for process in [*world.workers, *world.others]:
        world.scheduler.kill(process)
    Scheduler.now_running = None
    return Outcome(
        seed,
        failure,
        faults,
        len(world.jobs),
        world.invariants.checks,
        world.invariants.rendered_again,
        end_s,
        time.perf_counter() - started,
        world.trace,
        dict(world.requests),
    )


def _play(world: World, workers: int) -> None:
    people, fate = Process("people"), Process("fate")
    world.scheduler.spawn(people, _people, world, people)
    world.scheduler.spawn(fate, _supervise, world, workers)
    for name, act in EVENTS.items():
        if rate := getattr(world.faults, name):
            world.scheduler.spawn(fate, _befall, world, act, rate)
    stays_over = not (world.faults.people or world.faults.wipes or world.faults.crashes)
    world.scheduler.run(lambda: stays_over and _is_over(world), STORM_S)
    world.calm = True
    world.tell("calm")
    if not world.scheduler.run(lambda: _is_over(world), STORM_S + CALM_S):
        raise Violation(f"not over after {CALM_S:.0f} calm seconds: {world.server.look(list(world.plans))}")
    world.invariants.check_end()


def _is_over(world: World) -> bool:
    if not world.redis_up or world.scheduler.now < world.look_again_at:
        return False
    world.look_again_at = world.scheduler.now + 1.0
    found = world.server.look(list(world.plans))
    return not any(_wants_submission(world, run) for run in world.plans) and all(
        one[0] is not None and int(one[1]) + int(one[2]) >= int(one[5]) == int(one[4]) and one[0] != b"cancelled"
        for one in found
    )


# What happens by itself.


def _supervise(world: World, workers: int) -> None:
    """As Kubernetes or systemd would: a worker that is gone is started again."""
    while True:
        if len(world.living()) < workers:
            world.start_worker()
        world.scheduler.pause(world.uniform(0.5, 4.0))


def _befall(world: World, act: Act, per_minute: float) -> None:
    while True:
        world.scheduler.pause(world.chance.expovariate(per_minute / 60))
        if world.calm:
            return
        act(world)


def _some_worker(act: Callable[[World, Any], None]) -> Act:
    def on(world: World) -> None:
        if living := world.living():
            act(world, world.chance.choice(living))

    return on


def _stop(world: World, worker: Any) -> None:
    seconds = world.uniform(0.5, 3 * LEASE_S)
    world.tell(f"{worker.name}: stopped for {seconds:.1f} s")
    world.invariants.excuse_held(worker)
    worker.frozen_until = world.scheduler.now + seconds


def _part(world: World, worker: Any) -> None:
    seconds = world.uniform(0.5, 3 * LEASE_S)
    world.tell(f"{worker.name}: cut off for {seconds:.1f} s")
    world.invariants.excuse_held(worker)
    worker.away_until = world.scheduler.now + seconds


def _crash(world: World) -> None:
    if not world.redis_up:
        return
    world.server.keep()
    world.kept_at = world.scheduler.now
    world.scheduler.pause(world.uniform(0.0, 1.0))
    world.crash_redis(world.uniform(0.1, 2 * LEASE_S))


def _wipe(world: World) -> None:
    if world.redis_up:
        world.kept_at = 0.0
        world.wipe_redis()


def _kill_submitter(world: World) -> None:
    for process in world.submitters.values():
        if process.alive:
            world.tell(f"{process.name}: killed")
            world.scheduler.kill(process)


EVENTS: dict[str, Act] = {
    "kills": _some_worker(World.kill),
    "terms": _some_worker(World.terminate),
    "stops": _some_worker(_stop),
    "partitions": _some_worker(_part),
    "crashes": _crash,
    "wipes": _wipe,
    "jumps": lambda world: world.jump(world.uniform(-3 * LEASE_S, 3 * LEASE_S)),
    "submitter_kills": _kill_submitter,
    "people": lambda world: _meddle(world),
}
"""A rate of Faults -> what happens so often."""


# What people do.


def _people(world: World, people: Process) -> None:
    """Submit each run, and look after it: a submission that ended in an error or was killed is made again."""
    while True:
        for run in world.plans:
            if _wants_submission(world, run) and not _is_submitting(world, run):
                for _ in range(2 if world.faults.people and world.chance.random() < 0.4 else 1):
                    _submit(world, run)  # two at once: a cron job and an impatient person
            if world.calm and world.redis_up and world.server.look([run])[0][0] == b"paused":
                world.act("unpause", lambda run=run: unpause(_client(world), run))  # type: ignore[misc]
        world.scheduler.pause(world.uniform(1.0, 4.0))


def _wants_submission(world: World, run: str) -> bool:
    if not world.redis_up:
        return False
    state, _, _, _, enqueued, images, done, *_ = world.server.look([run])[0]
    if state is None or int(enqueued) < int(images):
        return True
    if state == b"cancelled":
        return world.calm or world.chance.random() < 0.3
    ids = world.plan_ids[run]
    return any(ids[index] in world.invariants.deleted for index in bits(done))


def _is_submitting(world: World, run: str) -> bool:
    process = world.submitters.get(run)
    return process is not None and process.alive


def _submit(world: World, run: str) -> None:
    process = Process(f"submitter of {run}")
    world.submitters[run] = process
    world.others.append(process)

    def work() -> None:
        try:
            submit(world.plans[run], output=open_output(OUTPUT), run=run, client=_client(world))
            world.tell(f"{process.name}: has submitted")
        except (PromptmillError, redis.RedisError) as error:
            world.tell(f"{process.name}: {error}")
        process.alive = False

    world.tell(f"{process.name}: begins")
    world.scheduler.spawn(process, work)


def _client(world: World) -> redis.Redis:
    return client_of(world.server.url)


def _meddle(world: World) -> None:
    """One thing that a person may do to a run, at any time."""
    run = world.chance.choice(list(world.plans))
    what = world.chance.choice(["cancel", "pause", "unpause", "unpause", "priority", "delete", "retry"])
    if what == "delete":
        job_id = world.chance.choice(world.plan_ids[run])
        world.tell(f"somebody deletes the image of {world.jobs[job_id]}")
        return world.invariants.delete(job_id)
    deeds: dict[str, Callable[[], object]] = {
        "cancel": lambda: cancel(_client(world), run),
        "pause": lambda: pause(_client(world), run),
        "unpause": lambda: unpause(_client(world), run),
        "priority": lambda: set_priority(_client(world), run, world.chance.choice(list(PRIORITIES))),
        "retry": lambda: retry(open_output(OUTPUT), run, _client(world)),
    }
    return world.act(f"{what} {run}", deeds[what])
