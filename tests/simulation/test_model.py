"""The model holds in every state, finds what is planted in it, and moves as the real queue does."""

import random
from dataclasses import replace
from typing import Any

import pytest
import redis

from promptmill.producer.job import Job
from promptmill.producer.queue.keys import done_key, queue_key
from promptmill.producer.queue.ledger import Ledger
from promptmill.producer.queue.queue import Claim, JobQueue
from tests.entries import as_entries
from tests.simulation import model
from tests.simulation.model import DONE, FAILED, HELD, NOBODY, RULES, Move, Rule, State, explore, start

JOBS = [Job(prompt="p", seed=1, width=64 * (1 + n), height=64) for n in range(3)]  # a shape each: a claim can choose


@pytest.mark.slow
def test_all_is_well_in_every_state_of_two_workers_three_jobs_and_three_faults():
    found = explore(start())
    assert (found.wrong, found.way) == (None, ())
    assert found.states == 61_643, "docs/delivery.md says how many"


def test_all_is_well_in_every_state_of_a_smaller_farm():
    assert explore(start(jobs=2, faults=2)).wrong is None


@pytest.mark.parametrize(
    ("name", "planted", "wrong"),
    [
        ("settle", Rule(lambda j, w: j.memory[w] != model.NOTHING, RULES["settle"].make), "has no object"),
        ("settle", Rule(RULES["settle"].may, lambda j, w: replace(j, where=DONE)), "somebody has it"),
        ("expire", Rule(lambda j, w: False, RULES["expire"].make), "nothing leads to an end"),
        ("claim", Rule(lambda j, w: RULES["claim"].may(j, w) and j.deliveries < 3, RULES["claim"].make), "nothing"),
        (
            "release",
            Rule(
                lambda j, w: j.memory[w] != "",
                lambda j, w: replace(j, owner=NOBODY, deliveries=j.deliveries - 1, expired=True),
                lambda j, w: True,
            ),
            "delivered -1 times",
        ),
    ],
    ids=["done before it is written", "done and still held", "no lease ends", "never given up", "given back twice"],
)
def test_what_is_planted_in_the_model_is_found(name: str, planted: Rule, wrong: str):
    found = explore(start(jobs=1, faults=3), {**RULES, name: planted})
    assert found.wrong and wrong in found.wrong
    assert found.way


class Queues:
    """The real queue, as the model's two workers use it."""

    def __init__(self, client: redis.Redis) -> None:
        self.client: Any = client
        self.client.flushall()
        self.names = ["a0", "b0"]
        self.claims: dict[tuple[int, int], Claim] = {}
        Ledger(client).open("r", output="/out", digest="d", jobs=3, images=3, common={})
        JobQueue(client).enqueue("r", 0, 3, as_entries(enumerate(JOBS)))

    def make(self, move: Move) -> None:
        name, worker, index = move
        queue = JobQueue(self.client, self.names[worker], lease_s=3600)
        claim = self.claims.get((worker, index))
        if name == "claim":
            for one in queue.claim(JOBS[index].shape, 1):
                self.claims[worker, index] = one
        elif name == "renew":
            assert claim is not None and queue.renew([claim]) == []
        elif name == "settle":
            queue.done(self.claims.pop((worker, index)))
        elif name == "release":
            queue.release([self.claims.pop((worker, index))])
        elif name == "retry":
            self._retry(self.claims.pop((worker, index)), queue)
        elif name == "expire":
            self._expire(index)
        elif name == "crash":
            self.claims = {key: one for key, one in self.claims.items() if key[0] != worker}
            self.names[worker] += "'"  # a restarted worker is another consumer

    def _retry(self, claim: Claim, queue: JobQueue) -> None:
        """As render.Finisher.retry does."""
        if claim.last_chance:
            queue.failed(claim, "no luck")
        else:
            queue.release([claim], counted=True)

    def refuse(self, state: State) -> None:
        """No worker gets what the model says it may not claim."""
        for worker, name in enumerate(self.names):
            for index, job in enumerate(state.jobs):
                if not RULES["claim"].may(job, worker):
                    assert JobQueue(self.client, name, lease_s=3600).claim(JOBS[index].shape, 1) == []

    def _expire(self, index: int) -> None:
        (entry,) = self._pending(index)
        tries = {"idle": 4_000_000, "retrycount": entry["times_delivered"], "justid": True}
        name = queue_key("r", JOBS[index].shape)
        self.client.xclaim(name, "workers", entry["consumer"], 0, [entry["message_id"]], **tries)
        self.client.zadd(f"promptmill:held:{JOBS[index].shape.key}", {"r": 0}, xx=True)

    def _pending(self, index: int) -> list[dict[str, Any]]:
        name = queue_key("r", JOBS[index].shape)
        return list(self.client.xpending_range(name, "workers", "-", "+", 10)) if self.client.exists(name) else []

    def job(self, index: int) -> tuple[str, int, int]:
        """Where a job is, with which worker, and how often it was delivered."""
        if self.client.getbit(done_key("r"), index):
            return DONE, NOBODY, 0
        if index in Ledger(self.client).failed_indexes("r"):
            return FAILED, NOBODY, 0
        pending = self._pending(index)
        if not pending:
            return model.WAITS, NOBODY, 0
        consumer = pending[0]["consumer"]
        owner = next((n for n, name in enumerate(self.names) if consumer.startswith(name[0])), NOBODY)
        return HELD, NOBODY if consumer == "released" else owner, pending[0]["times_delivered"]


def told(state: State, index: int) -> tuple[str, int, int]:
    job = state.jobs[index]
    return (job.where, job.owner, job.deliveries if job.where == HELD else 0)


def walk(client: redis.Redis, seed: int) -> list[Move]:
    """Moves of the model drawn by the seed, each made on the real queue too, until all is over."""
    chance, queues, state, made = random.Random(seed), Queues(client), start(faults=5), []
    while not model.is_over(state) or any(any(job.memory) for job in state.jobs):
        move, state = chance.choice(list(model.moves(state)))
        made.append(move)
        queues.make(move)
        queues.refuse(state)
        for index in range(3):
            assert queues.job(index) == told(state, index), f"seed {seed}, after {made}: job {index}"
    return made


@pytest.mark.parametrize("seeds", [range(at, at + 10) for at in range(0, 60, 10)], ids=str)
def test_the_real_queue_moves_as_the_model_does(client: redis.Redis, seeds: range):
    seen = {move[0] for seed in seeds for move in walk(client, seed)}
    assert seen == {*RULES, "crash"}
