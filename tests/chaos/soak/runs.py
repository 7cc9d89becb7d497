"""One run's way through a soak: submitted, rendered, packed, exported, verified, checked.

Each command is a process of ours, which is killed somewhere between its start and where it last ended, and called
again, as a user would.
"""

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import redis

from promptmill.dataset.failures import read_failures
from promptmill.producer.errors import PromptmillError
from promptmill.producer.layout import Look, image_name, job_of, look_inside
from promptmill.producer.outputs.output import Output
from promptmill.producer.plan_files import load_plan
from promptmill.producer.queue.ledger import Ledger
from tests.chaos.soak.tally import Tally
from tests.chaos.soak.zygote import Child, Zygote

KILLS_PER_COMMAND = 5
KILL_SHARE = 0.8
"""Of the calls of a command that may still be killed."""
LOOK_EVERY_S = 0.5
AGAIN_S = 0.3
STUCK_S = 420.0
"""A run that takes longer does not end."""


@dataclass(frozen=True)
class Shared:
    """What all runs of a soak use."""

    zygote: Zygote
    chance: random.Random
    client: redis.Redis
    output: Output
    """Without the faults of the workers' way to it."""
    folder: Path
    tally: Tally
    took_s: dict[str, float]
    """By verb: how long a call took that was not killed."""


class Command:
    """A verb that is called until it has ended by itself."""

    def __init__(self, shared: Shared, argv: list[str], log: Path, is_done: Callable[[int], bool]) -> None:
        self._shared, self._argv, self._log, self._is_done = shared, argv, log, is_done
        self._child: Child | None = None
        self._kills = 0
        self._kill_at = self._start_at = 0.0  # time.monotonic()

    def step(self, *, killing: bool) -> int | None:
        """Start it, kill it, or see that it has ended; its exit code, once that is a good one."""
        now = time.monotonic()
        if self._child is None:
            if now >= self._start_at:
                self._child = self._shared.zygote.start(self._argv, self._log)
                self._kill_at = self._moment(now)
            return None
        code = self._child.code
        if code is None:
            if killing and now >= self._kill_at:
                self._child.signal(signal.SIGKILL)
                self._kills += 1
                self._kill_at = float("inf")
                self._shared.tally.faults[f"SIGKILL {self._argv[0]}"] += 1
            return None
        if code >= 0:
            self._shared.took_s[self._argv[0]] = now - self._child.started
        self._child, self._start_at = None, now + AGAIN_S
        return code if self._is_done(code) else None

    def _moment(self, now: float) -> float:
        chance = self._shared.chance
        if self._kills >= KILLS_PER_COMMAND or chance.random() > KILL_SHARE:
            return float("inf")
        return now + chance.uniform(0.0, self._shared.took_s.get(self._argv[0], 1.0))


class Run:
    """`step` until `over`."""

    def __init__(self, shared: Shared, name: str, jobs: int) -> None:
        self._shared, self.name, self._jobs = shared, name, jobs
        self.output = shared.output.child(name)
        self.over = False
        self.stage = "submit"
        self._started = time.monotonic()
        self._looked = 0.0
        self._log = shared.folder / f"{name}.log"
        file = shared.folder / f"{name}.txt"
        file.write_text("\n".join(f"{name} {number}" for number in range(jobs)))
        url = self.output.url
        submit = ["submit", str(file), "--output", shared.output.url, "--run", name, "--steps", "2"]
        self._submit = self._command(submit, 0)
        self._resume = self._command(["resume", name, "--output", shared.output.url], 0)
        self._is_resuming = False
        self._pack = self._command(["pack", url, "--shard-size", "16"], 0, 1, 2)
        self._export = self._command(["export", url, str(shared.folder / name)], 0, 1)
        self._verify = self._command(["verify", url], 0, 1)

    def _command(self, argv: list[str], *good: int) -> Command:
        return Command(self._shared, argv, self._log, good.__contains__)

    @property
    def is_rendering(self) -> bool:
        return self.stage == "render"

    def step(self, *, killing: bool) -> None:
        """Go on where it can."""
        getattr(self, f"_{self.stage}_on")(killing)
        if not self.over and time.monotonic() - self._started > STUCK_S:
            self.give_up(f"{self.name} did not end in {STUCK_S:.0f} s")

    def give_up(self, why: str) -> None:
        self._shared.tally.lost.append(f"{why}; it stood at {self.stage}")
        self.over = True

    def _submit_on(self, killing: bool) -> None:
        if self._submit.step(killing=killing) is not None:
            self.stage = "render"

    def _render_on(self, killing: bool) -> None:
        if self._is_resuming:
            self._is_resuming = self._resume.step(killing=killing) is None
            return
        if time.monotonic() - self._looked < LOOK_EVERY_S:
            return
        self._looked = time.monotonic()
        try:
            status = Ledger(self._shared.client).status(self.name)
        except redis.RedisError:
            return
        except PromptmillError:  # Redis was wiped, or has lost its last second
            self._is_resuming = True
            return
        self._is_resuming = status.enqueued < status.jobs
        if status.finished and not self._is_resuming:
            if status.done + status.failed > self._jobs:
                self._shared.tally.doubled.append(f"{self.name} counts {status.done} done and {status.failed} failed")
            self.stage = "pack"

    def _pack_on(self, killing: bool) -> None:
        code = self._pack.step(killing=killing)
        if code is not None:
            # Refused: Redis was wiped since, and nobody knows any more why some have no image; or nothing answered.
            self.stage = "render" if code == 2 else "export"

    def _export_on(self, killing: bool) -> None:
        if self._export.step(killing=killing) is not None:
            self.stage = "verify"

    def _verify_on(self, killing: bool) -> None:
        code = self._verify.step(killing=False)
        if code is not None:
            if code == 1:
                self._shared.tally.broken.append(f"verify of {self.name}: {self._log.read_text()[-400:]}")
            self.check()
            self.over = True

    def check(self) -> None:
        """Each job has its image or its reason, and no image is anybody else's."""
        tally, output = self._shared.tally, self.output
        reasons = read_failures(output)
        names = set(output.list("images/"))
        exported = Counter(path.suffix for path in (self._shared.folder / self.name).glob("*"))
        with load_plan(output) as plan:
            for job in plan:
                name = image_name(job.id)
                if name in names:
                    data = output.get(name)
                    if look_inside(job.id, len(data), partial(_piece, data)) is not Look.OURS:
                        tally.broken.append(f"{self.name}/{name}")
                elif job.index in reasons:
                    tally.failed[reasons[job.index]] += 1
                else:
                    tally.lost.append(f"{self.name}/{job.index}")
            tally.doubled += [f"{self.name}/{one} is no job's" for one in names - {image_name(j.id) for j in plan}]
        if exported[".png"] != len(names):
            tally.broken.append(f"{self.name}: exported {exported['.png']} of {len(names)} images")
        tally.runs += 1
        tally.jobs += self._jobs
        tally.images += sum(job_of(name) is not None for name in names)


def _piece(data: bytes, start: int, length: int) -> bytes:
    return data[start:][:length]
