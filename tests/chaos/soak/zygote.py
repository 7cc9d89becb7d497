"""A process that has imported everything and forks commands of ours: a worker costs one second of CPU to start, not 3.

`python -m tests.chaos.soak.zygote` reads an order per line of standard input, `{"argv": [...], "log": "..."}`, and
writes a line per child: `started PID`, in the order of the orders, and `ended PID CODE`. It starts no thread and no JAX
backend before it forks, so a child is what a process of its own would be. With its standard input it ends, and kills
what it started. Workers note what they begin to render in the file SOAK_LOG: time, process id, job id.
"""

import contextlib
import faulthandler
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

PRELOADED = (
    "celery.apps.worker", "google.cloud.storage", "PIL.Image", "promptmill.cli", "promptmill.exporter",
    "promptmill.producer.submit", "promptmill.verbs.export", "promptmill.verbs.exporter", "promptmill.verbs.pack",
    "promptmill.verbs.planning", "promptmill.verbs.resume", "promptmill.verbs.submit", "promptmill.verbs.verify",
    "promptmill.verbs.worker", "promptmill.worker.app", "promptmill.worker.fetch", "promptmill.worker.keep",
    "promptmill.worker.metrics_server", "promptmill.worker.pull",
)  # fmt: skip
"""Not pyarrow: it starts a thread of its allocator, and children forked beside it hang."""
REAP_EVERY_S = 0.02


class Child:
    """A process that the zygote started. `code` is None while it lives; of one that a signal ended, its negative."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.started = time.monotonic()
        self.ended = threading.Event()
        self.code: int | None = None

    def signal(self, number: int) -> None:
        if self.code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


class Zygote:
    """The soak's side: starts children, and hears of their ends."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        # A thread that is there before the fork is none of the child's.
        environ = {**environ, "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen([sys.executable, "-m", __name__], env=environ, **pipes)
        self._started: SimpleQueue[Child] = SimpleQueue()
        self._children: dict[int, Child] = {}
        threading.Thread(target=self._hear, daemon=True).start()

    def start(self, argv: Sequence[str], log: Path) -> Child:
        """Run `promptmill ARGV` in a child; what it says is appended to `log`."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"argv": list(argv), "log": str(log)}) + "\n")
        self._process.stdin.flush()
        return self._started.get(timeout=300)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _hear(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            what, pid, *code = line.split()
            if what == "started":
                self._children[int(pid)] = child = Child(int(pid))
                self._started.put(child)
            else:
                child = self._children.pop(int(pid))
                child.code = int(code[0])
                child.ended.set()


def _note_what_begins() -> None:
    """Have this process, and what it forks, write down what it begins to render."""
    import promptmill.worker.pull as pull

    really_start = pull.start  # type: ignore[attr-defined]  # where its name is looked up

    def start(program: Any, claims: Sequence[Any], checks: Any) -> Any:
        lines = "".join(f"{time.time():.3f} {os.getpid()} {claim.job.id}\n" for claim in claims)
        with Path(os.environ["SOAK_LOG"]).open("a") as file:
            file.write(lines)
        return really_start(program, claims, checks)

    pull.start = start  # type: ignore[attr-defined]


def _trace_the_model(name: str) -> None:
    """What a worker asks of its model before it loads any weights: traced once here, and no backend is started."""
    from promptmill.worker.checkpoints import find_model
    from promptmill.worker.families import family_of

    folder = find_model(name)
    family_of(folder).Model.check(folder)


def _run(argv: Sequence[str], log: str) -> int:
    """Be `promptmill ARGV`, in the child."""
    from promptmill.cli import main

    nothing, said = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for source, target in ((nothing, 0), (said, 1), (said, 2)):
        os.dup2(source, target)
    faulthandler.register(signal.SIGUSR1)  # to see where one hangs
    sys.argv = ["promptmill", *argv]
    try:
        main()
    except SystemExit as exit_:
        return int(exit_.code or 0)
    return 0


def _fork(argv: Sequence[str], log: str) -> int:
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            code = _run(argv, log)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return pid


def _say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def _reap(living: set[int]) -> None:
    while living:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        living.discard(pid)
        _say("ended", pid, os.waitstatus_to_exitcode(status))


def serve() -> None:
    """Fork what is ordered, until there are no orders any more."""
    for module in PRELOADED:
        importlib.import_module(module)
    _note_what_begins()
    _trace_the_model(os.environ["PROMPTMILL_MODEL"])
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "a child of a process with threads may hang"
    living: set[int] = set()
    rest = b""
    while True:
        if select.select([0], [], [], REAP_EVERY_S)[0]:
            read = os.read(0, 1 << 16)
            if not read:
                break
            *lines, rest = (rest + read).split(b"\n")
            for line in lines:
                living.add(pid := _fork(**json.loads(line)))
                _say("started", pid)
        _reap(living)
    for pid in living:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    serve()
