"""A worker of this command's own: started, watched, started again when it dies, stopped with it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import click

from promptmill.embedded import Embedded
from promptmill.producer.errors import PromptmillError
from promptmill.producer.scratch import scratch_folder
from promptmill.verbs.options import env

MAX_DEATHS = 6
"""Deaths in a row without one more job settled: a job that kills its worker is given up after three."""

STOP_S = 45.0  # the worker's own time to finish what it holds, and some
LEASE_S = 15.0  # nobody but us starts its successor, so what a dead one held need not wait for long


OURS = "promptmill: "  # before a sentence for whoever started the worker: worker/bootstep.py


class WorkerFailed(PromptmillError):
    """The worker cannot do its work."""


class LocalWorker:
    """`promptmill worker` as a child process. Use as a context manager."""

    def __init__(
        self, broker: str, *, verbose: bool, embedded: Embedded | None = None, environ: Mapping[str, str]
    ) -> None:
        self.name = f"promptmill-render-{os.getpid()}@{socket.gethostname()}"
        self._environ = {
            env("lease_s"): str(LEASE_S),
            **os.environ,
            **environ,
            env("broker"): broker,
            env("hostname"): self.name,
        }
        self._lifelines = [embedded.lifeline] if embedded else []
        if embedded:  # should we be killed, the worker stops by itself, and the Redis with it
            self._environ[env("parent_pid")] = str(os.getpid())
        self._verbose = verbose
        self._stack = contextlib.ExitStack()
        self._scratch = self._stack.enter_context(scratch_folder("render"))
        self._log = self._stack.enter_context((self._scratch.folder / "worker.log").open("wb"))
        self._deaths = 0
        self._settled = 0
        self._process: subprocess.Popen[bytes]

    def __enter__(self) -> "LocalWorker":
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        if error is not None and not isinstance(error, KeyboardInterrupt):
            self._scratch.keep()  # the error names the log
        self._stack.close()

    def watch(self, settled: int) -> None:
        """Starts the worker again if it died. `settled` jobs are done or failed by now. Raises WorkerFailed."""
        if settled > self._settled:
            self._settled, self._deaths = settled, 0
        code = self._process.poll()
        if code is None:
            return
        self._deaths += 1
        if code >= 0 or self._deaths >= MAX_DEATHS:  # not killed: it gave up, and says why
            raise WorkerFailed(self._last_words() or f"the worker stopped (exit code {code}):\n{self.log_tail()}")
        click.echo(f"the worker was killed (signal {-code}); starting another", err=True)
        self._start()

    def _last_words(self) -> str:
        """The sentence that a worker leaves which cannot start; '' if there is none, or it was seen."""
        lines = [] if self._verbose else Path(self._log.name).read_text(errors="replace").splitlines()
        said = [line.removeprefix(OURS) for line in lines if line.startswith(OURS)]
        return f"{said[-1]} (its log: {self._log.name})" if said else ""

    def log_tail(self, lines: int = 15) -> str:
        """The end of what the worker said, and where the rest is."""
        if self._verbose:
            return "(see above)"
        text = Path(self._log.name).read_text(errors="replace").splitlines()
        return "\n".join([*text[-lines:], f"(all of it: {self._log.name})"])

    def _start(self) -> None:
        # A session of its own: Ctrl-C in the terminal goes to us, and we say when the worker stops.
        self._process = subprocess.Popen(
            # -P: no file of the user's folder is imported for one of ours.
            [sys.executable, "-P", "-m", "promptmill", "worker"],
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr if self._verbose else self._log,  # our own stdout is for data
            stderr=None if self._verbose else self._log,
            start_new_session=True,
            pass_fds=[*self._lifelines, self._scratch.lock],
        )

    def _stop(self) -> None:
        if self._process.poll() is not None:
            return
        self._process.terminate()
        deadline = time.monotonic() + STOP_S
        try:
            while self._process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
        except KeyboardInterrupt:
            click.echo("stopping at once; unfinished images are rendered next time", err=True)
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
