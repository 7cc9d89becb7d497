"""What must hold after every step of a world."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from promptmill.producer.job import JobId
from promptmill.producer.layout import Look, look_inside
from promptmill.worker.encode import job_id_inside
from tests.simulation.bucket import Stored
from tests.simulation.threads import Process

ENTERING = ("reenter", "open", "purge")
"""Scripts after which a job may wait that was over."""


class Violation(BaseException):
    """Something does not hold. No handler of the code under test catches it."""


def _whole_image_of(data: bytes) -> str | None:
    """The id of the job whose image this is; None where a worker or a submitter would not take it for a whole one."""
    job_id = job_id_inside(data)
    if job_id is None:
        return None
    found = look_inside(JobId(job_id), len(data), lambda start, length: data[start:][:length])
    return job_id if found is Look.OURS else None


def hold(condition: object, what: str) -> None:
    if not condition:
        raise Violation(what)


def bits(data: bytes) -> set[int]:
    """The indexes of the bits that are set; Redis counts from a byte's highest bit."""
    return {8 * number + bit for number, byte in enumerate(data) for bit in range(8) if byte & 0x80 >> bit}


class Invariants:
    """Of one world.

    A done bit has its whole object; an object has its job; nothing whole is written over; counts are bits; a job is in
    one place; a job is rendered once, and once more at most for each fault that met a worker which held it.
    """

    def __init__(self, world: Any) -> None:
        self._world = world
        self._whole: dict[str, str | None] = {}
        """Of each object's name the id of the job whose whole image it is."""
        self._foreign: set[str] = set()
        self._were_foreign: set[str] = set()
        self.deleted: set[str] = set()
        """Ids of jobs whose image a person deleted."""
        self._renders: Counter[str] = Counter()
        self._excuses: Counter[str] = Counter()
        self._rendered_at: dict[str, float] = {}
        self._settled: dict[str, tuple[set[int], set[int]]] = {}
        """Of each run what was done and what had failed at the last look."""
        self.checks = 0

    # The bucket.

    def squatted(self, job_id: str, *, foreign: bool) -> None:
        self._foreign |= {job_id} if foreign else set()
        self._were_foreign |= {job_id} if foreign else set()

    def written(self, new: Stored, old: Stored | None) -> None:
        """An object was created or replaced."""
        if "/images/" not in new.name:
            return
        job_id = _whole_image_of(new.data)
        hold(old is None or self._whole.get(new.name) is None, f"{new.name} was whole, and is written over")
        self._whole[new.name] = job_id
        told = new.told.get("metadata", {}).get("job_id")
        if told is not None:
            hold(job_id == told, f"{new.name} says that it is {told}, and is {job_id}")
            hold(self._world.name_of(job_id) == new.name, f"{new.name} is the image of {job_id}")
            self.deleted.discard(job_id)

    def delete(self, job_id: str) -> None:
        """A person deletes an image."""
        name = self._world.name_of(job_id)
        if self._whole.pop(name, None) is not None:
            del self._world.store.objects[name]
            self._foreign.discard(job_id)
            self.deleted.add(job_id)
            self.excuse([job_id])

    def is_foreign(self, job_id: str) -> bool:
        """Whether something else lay where its image would, at some time."""
        return job_id in self._were_foreign

    def unlucky(self, job_id: str) -> bool:
        """Whether enough happened to it that it may have been given up."""
        return job_id in self._world.poison | self._world.cursed or self._excuses[job_id] >= 2

    def is_there(self, job_id: str) -> bool:
        return self._whole.get(self._world.name_of(job_id)) == job_id

    # Redis.

    def check(self, step: str = "") -> None:
        """What holds between any two steps; `step` is the one that was just made."""
        self.checks += 1
        runs = list(self._world.plans)
        for run, found in zip(runs, self._world.server.look(runs), strict=True):
            if found[0] is not None:
                self._check_run(run, *found)
            self._compare(run, step, bits(found[6]), bits(found[7]))

    def _compare(self, run: str, step: str, done: set[int], failed: set[int]) -> None:
        """What was over stays so, but for what is entered anew: what had failed, and what has lost its image."""
        were_done, had_failed = self._settled.get(run, (set(), set()))
        self._settled[run] = done, failed
        ids = self._world.plan_ids[run]
        anew = {index for index in were_done | had_failed if index not in done | failed}
        if step:
            hold(not anew or step in ENTERING, f"{run}: {anew} were over, and {step} made them wait")
            lost = [ids[index] for index in anew if index in had_failed or not self.is_there(ids[index])]
            self.excuse(job_id for job_id in lost for _ in range(self._world.tries_of(job_id)))

    def _check_run(
        self,
        run: str,
        state: bytes,
        done: bytes,
        failed: bytes,
        queued: bytes,
        enqueued: bytes,
        images: bytes,
        done_bits: bytes,
        failed_bits: bytes,
        failures: int,
        streams: list[bytes],
    ) -> None:
        are_done, are_failed, wait = bits(done_bits), bits(failed_bits), [int(index) for index in streams]
        hold(int(done) == len(are_done), f"{run}: {int(done)} are counted as done, and {sorted(are_done)} are")
        hold(int(failed) == len(are_failed) == failures, f"{run}: {int(failed)} failed, {are_failed}, {failures}")
        for index in are_done:
            job_id = self._world.plan_ids[run][index]
            hold(self.is_there(job_id) or job_id in self.deleted, f"{run}/{index} is done, and has no whole image")
        hold(not are_done & are_failed, f"{run}: {are_done & are_failed} are done, and failed too")
        if state == b"cancelled":
            return hold(not wait, f"{run} is cancelled, and {wait} wait")
        hold(len(wait) == len(set(wait)), f"{run}: one of {wait} waits twice")
        hold(len(wait) == int(queued), f"{run}: {int(queued)} are counted as waiting, and {wait} wait")
        hold(
            not set(wait) & (are_done | are_failed), f"{run}: {set(wait) & (are_done | are_failed)} wait, and are over"
        )
        known = set(wait) | are_done | are_failed
        lost = [index for index in range(int(enqueued)) if index not in known]
        return hold(not lost, f"{run}: {lost} are lost")

    def settled(self) -> dict[str, set[int]]:
        """What is done or failed now, by run."""
        runs = list(self._world.plans)
        found = zip(runs, self._world.server.look(runs), strict=True)
        return {run: bits(one[6]) | bits(one[7]) for run, one in found if one[0] is not None}

    def restarted(self, before: dict[str, set[int]]) -> None:
        """Redis has lost something: what was settled then and is not now may be rendered again."""
        now = self.settled()
        for run, settled in before.items():
            ids = [self._world.plan_ids[run][index] for index in settled - now.get(run, set())]
            self.excuse(job_id for job_id in ids for _ in range(self._world.tries_of(job_id)))
        self.forgotten()
        recent = self._world.kept_at
        self.excuse(job_id for job_id, at in self._rendered_at.items() if at >= recent)

    # Work.

    def excuse(self, job_ids: Iterable[str]) -> None:
        """These jobs may be rendered once more: they were in flight when something happened."""
        self._excuses.update(job_ids)

    def forgotten(self) -> None:
        """Redis no more knows how often a job was tried, as jobs are entered anew."""
        bad: set[str] = self._world.poison | self._world.cursed
        self.excuse(job_id for job_id in sorted(bad) for _ in range(self._world.tries_of(job_id)))

    def excuse_held(self, process: Process) -> None:
        """What the process holds by its own memory, and by Redis': it may not have heard of all of it yet."""
        claims: list[Any] = getattr(process, "claims", list)()
        known = {str(claim.job.id) for claim in claims}
        if process.name.startswith("w"):
            for run, index, consumer in self._world.server.held(list(self._world.plans)):
                if consumer.startswith(f"{process.name}/"):
                    known.add(self._world.plan_ids[run][index])
        self.excuse(sorted(known))

    def rendering(self, job_ids: list[str]) -> None:
        for job_id in job_ids:
            self._renders[job_id] += 1
            self._rendered_at[job_id] = self._world.scheduler.now
            tries = self._world.tries_of(job_id)
            allowed = tries + self._excuses[job_id]
            times = f"rendered {self._renders[job_id]} times, and {allowed} can be explained"
            hold(self._renders[job_id] <= allowed, f"{self._world.jobs[job_id]} is {times}")

    @property
    def rendered_again(self) -> int:
        return sum(count - 1 for count in self._renders.values())

    # The end.

    def check_end(self) -> None:
        """Each job has its image, or a reason that can be."""
        runs = list(self._world.plans)
        seen = self._world.server.look(runs)
        self._world.server.changed()
        hold(self._world.server.look(runs) == seen, "a run has changed, and by none of the scripts that may change one")
        self.check()
        for run, found in zip(runs, self._world.server.look(runs), strict=True):
            are_done, are_failed = bits(found[6]), bits(found[7])
            for index, job_id in enumerate(self._world.plan_ids[run]):
                where = f"{run}/{index}"
                hold((index in are_done) != (index in are_failed), f"{where} has no end, or two")
                hold(job_id not in self._foreign or index in are_failed, f"{where} is done, at somebody else's image")
                if index in are_failed and not self._world.may_fail(job_id):
                    raise Violation(f"{where} failed: {self._world.reason(run, index)}")
