"""`promptmill submit`, killed at ten moments and run again: each job is in the queue or done, once."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from promptmill.producer.layout import image_name
from promptmill.producer.outputs.folder import Folder
from promptmill.producer.plan_files import load_plan, read_run
from promptmill.producer.queue.keys import queue_key, run_key
from promptmill.producer.queue.ledger import Ledger
from promptmill.producer.queue.queue import JobQueue
from promptmill.producer.submit import done_bits, set_indexes
from tests.entries import indexes_in
from tests.images import image_of

SEED = 20261124
JOBS = 200_000
REPEATS = 500  # rows that mean the same as one before them
KILLS = 10
PATIENCE_S = 60.0

Moment = Callable[[float], bool]
"""Whether it is time to kill, so many seconds after the start."""


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """Rows that are quick and slow to read, wrong ones among them, and some that mean the same."""
    chance = random.Random(SEED)
    file = tmp_path / "prompts.jsonl"
    rows = [{"prompt": f"image {n}", "seed": n, "width": chance.choice([64, 128])} for n in range(JOBS - REPEATS)]
    rows += [rows[chance.randrange(len(rows))] for _ in range(REPEATS)]
    rows.insert(100, {"prompt": "wrong", "width": 7})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


KILLED_WITHIN = """
import os, signal, sys, threading
from promptmill.producer.outputs.folder import Folder
from promptmill.producer.plan_builder import PlanBuilder

owner, name = {"reading": (PlanBuilder, "add"), "writing": (Folder, "put_once")}[sys.argv.pop(1)]
call, lock, left = getattr(owner, name), threading.Lock(), int(sys.argv.pop(1))

def counted(*args, **given):
    global left
    with lock:
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
    return call(*args, **given)

setattr(owner, name, counted)
from promptmill.cli import main
main()
"""
"""`promptmill` that dies by SIGKILL at a job that it reads or an object that it writes.

Objects are written within milliseconds, and on a busy machine nobody outside hits the moment."""


def kill_within(phase: str, count: int, arguments: list[str]) -> bool:
    """Runs `promptmill ARGUMENTS`, killed after so many jobs or objects; False where it ended before."""
    command = [sys.executable, "-c", KILLED_WITHIN, phase, str(count), *arguments]
    ended = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return ended.returncode == -signal.SIGKILL


def kill_at(moment: Moment, command: list[str]) -> bool:
    """Starts the command and kills it when its moment has come; False where it ended before."""
    started = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            if moment(time.monotonic() - started):
                process.kill()
                break
            assert time.monotonic() - started < PATIENCE_S
            time.sleep(0.0005)
        return process.wait() == -signal.SIGKILL


def work_a_little(client: redis.Redis, output: Folder) -> None:
    """What workers do meanwhile: some jobs are done, their images safe in the output."""
    queue = JobQueue(client, "w")
    for ready in queue.claimable():
        for claim in queue.claim(ready.shape, 8):
            output.child("r").put_once(image_name(claim.job.id), image_of(claim.job))
            queue.done(claim)


def waiting(client: redis.Redis, output: Folder) -> list[int]:
    """The indexes in the run of all jobs in its streams."""
    with load_plan(output.child("r")) as plan:
        names = [queue_key("r", shape) for shape in plan.shapes]
    return [index for name in names for index in indexes_in(client, name)]


@pytest.mark.slow
def test_a_submission_killed_at_ten_moments_enters_each_job_once(client, redis_url, tmp_path, prompts):
    chance = random.Random(SEED)
    output = Folder(tmp_path / "out")
    plan_folder = output.root / "r" / "plan"
    options = ["--output", str(output.root), "--run", "r", "--broker", redis_url, "--on-error", "skip"]
    arguments = ["submit", str(prompts), *options]
    command = [sys.executable, "-m", "promptmill", *arguments]

    def entered() -> int:
        return int(client.hget(run_key("r"), "enqueued") or 0)

    def files() -> int:
        return sum(1 for _ in plan_folder.glob("*")) if plan_folder.exists() else 0

    def while_entering() -> Moment:
        before = entered()
        count = before + chance.uniform(0.02, 0.3) * (JOBS - before)
        return lambda s: entered() > count

    def kill(phase: str) -> bool:
        if phase == "entering":
            return kill_at(while_entering(), command)
        least, most = {"reading": (1, JOBS), "writing": (10, 19)}[phase]  # of 20 files, 8 are on their way at once
        return kill_within(phase, chance.randrange(least, most), arguments)

    told = []
    for phase in ["reading"] * 3 + ["writing"] * 3 + ["entering"] * (KILLS - 6):
        assert kill(phase), f"it ended before it was killed {phase}"
        told.append((phase, files(), read_run(output.child("r")) is not None, entered()))
        work_a_little(client, output)
    print("\n".join(map(str, told)), file=sys.stderr)
    assert sum(0 < count < JOBS for *_, count in told) >= 4, "killed too early or too late to show anything"
    assert any(0 < count < 20 and not whole for _, count, whole, _ in told), "no kill left half a plan"

    assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0
    done = list(set_indexes(done_bits(client, "r")))
    indexes = sorted(waiting(client, output) + done)
    assert len(indexes) == len(set(indexes)), "a job is in twice"
    with load_plan(output.child("r")) as plan:
        assert indexes == [job.index for job in plan if job.first]
        assert (plan.jobs, plan.images) == (JOBS, JOBS - REPEATS)
    assert done, "nothing was done meanwhile"
    status = Ledger(client).status("r")
    assert (status.images, status.done, status.pending) == (JOBS - REPEATS, len(done), JOBS - REPEATS - len(done))
    assert len((output.root / "r" / "rejects.jsonl").read_bytes().splitlines()) == 1


def nameless_files(pid: int) -> list[str]:
    """The files without a name that a process has open."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").glob("*"):
        with contextlib.suppress(FileNotFoundError):
            found.append(str(entry.readlink()))
    return [name for name in found if name.endswith(" (deleted)")]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks into Linux' /proc")
def test_what_is_killed_leaves_no_temporary_files(tmp_path, prompts):
    """A killed submission has no time to tidy up; its files have no names to leave behind."""
    command = [sys.executable, "-m", "promptmill", "submit", str(prompts), "--output", str(tmp_path / "out")]
    environ = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    (tmp_path / "tmp").mkdir()
    with subprocess.Popen([*command, "--broker", "redis://127.0.0.1:1"], env=environ, stderr=subprocess.DEVNULL) as run:
        while not nameless_files(run.pid):
            assert run.poll() is None, "it ended without a temporary file"
        run.kill()
    assert list((tmp_path / "tmp").iterdir()) == []
