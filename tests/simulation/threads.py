"""Threads, locks and clocks of a simulated world: greenlets that one scheduler resumes, one at a time, in virtual time.

Code runs in no time at all; time goes by where a task waits: for a lock, a pause, the network. Tasks that are due at
the same moment are resumed in an order that the seed draws. A process may be killed or stopped between any two of its
waits: that is between any two steps that anybody else could see.

`Thread`, `Lock`, `Condition`, `Event` and `SimpleQueue` stand in for those of the standard library.
"""

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, ClassVar

import greenlet  # type: ignore[import-untyped]


class Killed(BaseException):
    """The process of this task is dead: what it would still do does not happen."""


class Process:
    """What is killed as one: its tasks, and its connections."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.frozen_until = 0.0
        """Until when it is stopped (SIGSTOP), in virtual seconds."""
        self.away_until = 0.0
        """Until when the network does not reach it."""
        self.tasks: list[Task] = []


class Task:
    """A thread of a process."""

    def __init__(self, process: Process, call: Callable[[], Any], hub: greenlet.greenlet) -> None:
        self.process = process
        self.greenlet = greenlet.greenlet(call, parent=hub)


class _Wake:
    """A task is to go on at some time, if nothing else has woken it until then."""

    __slots__ = ("task", "used")

    def __init__(self, task: Task) -> None:
        self.task, self.used = task, False


class Scheduler:
    """Virtual time, and whose turn it is. `Scheduler.now_running` is the one whose tasks run in this Python process."""

    now_running: ClassVar["Scheduler | None"] = None

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(f"turns {seed}")
        self.now = 0.0
        self.current: Task | None = None
        self._wakes: list[tuple[float, float, int, _Wake]] = []
        """A heap: at what time, drawn by lot, a number that makes all of them differ."""
        self._numbers = itertools.count()
        self._hub = greenlet.getcurrent()

    def spawn(self, process: Process, call: Callable[..., Any], *args: Any) -> None:
        """A new thread of the process, which begins at once."""
        if not process.alive:
            return
        task = Task(process, lambda: call(*args), self._hub)
        process.tasks.append(task)
        self.wake(task, 0.0)

    def wake(self, task: Task, after_s: float) -> _Wake:
        wake = _Wake(task)
        heapq.heappush(self._wakes, (self.now + after_s, self.chance.random(), next(self._numbers), wake))
        return wake

    def pause(self, seconds: float) -> None:
        """The current task waits so long. Raises Killed where its process is killed meanwhile."""
        self.park(self.wake(self.running(), seconds))

    def park(self, *wakes: _Wake) -> None:
        """Wait for the first of these wakes, or of those that others make for this task."""
        task = self.running()
        if not task.process.alive:
            raise Killed
        self._hub.switch()
        for wake in wakes:
            wake.used = True
        if not task.process.alive:
            raise Killed

    def running(self) -> Task:
        assert self.current is not None, "only a simulated thread may wait"
        return self.current

    def run(self, until: Callable[[], bool], limit_s: float) -> bool:
        """Go on until something holds, which is returned, or the virtual time is over."""
        while not until():
            if not self._wakes or self._wakes[0][0] > limit_s:
                return False
            self._resume(*heapq.heappop(self._wakes))
        return True

    def _resume(self, at: float, lot: float, number: int, wake: _Wake) -> None:
        process = wake.task.process
        if wake.used or wake.task.greenlet.dead or not process.alive:
            return
        if process.frozen_until > at:
            heapq.heappush(self._wakes, (process.frozen_until, lot, number, wake))
            return
        self.now, wake.used = max(self.now, at), True
        self.current = wake.task
        try:
            wake.task.greenlet.switch()
        except Killed:
            pass
        finally:
            self.current = None

    def kill(self, process: Process) -> None:
        """SIGKILL: nothing of it runs any more. What unwinds in its memory can reach nobody."""
        process.alive = False
        for task in process.tasks:
            if not task.greenlet.dead and task is not self.current:
                previous, self.current = self.current, task
                task.greenlet.parent = greenlet.getcurrent()  # where it ends up when it has unwound
                try:
                    task.greenlet.throw(Killed)
                except Killed:
                    pass
                finally:
                    self.current = previous
        process.tasks.clear()


def scheduler() -> Scheduler:
    assert Scheduler.now_running is not None
    return Scheduler.now_running


def in_a_task() -> bool:
    """Whether a simulated thread is running, and not the one that simulates."""
    return Scheduler.now_running is not None and Scheduler.now_running.current is not None


class Condition:
    """A block under it never waits but in `wait_for`, and so it needs no lock: nobody else runs meanwhile."""

    def __init__(self) -> None:
        self._waiting: list[Task] = []

    def __enter__(self) -> "Condition":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        return None

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        world = scheduler()
        end = None if timeout is None else world.now + timeout
        while not (found := predicate()):
            left = None if end is None else end - world.now
            if left is not None and left <= 0:
                return found
            task = world.running()
            self._waiting.append(task)
            world.park(*([] if left is None else [world.wake(task, left)]))
        return found

    def notify_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        for task in waiting:
            scheduler().wake(task, 0.0)


class Event:
    def __init__(self) -> None:
        self._set = False
        self._changed = Condition()

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        self._changed.notify_all()

    def clear(self) -> None:
        self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        return bool(self._changed.wait_for(lambda: self._set, timeout))


class Lock:
    def __init__(self) -> None:
        self._owner: Task | None = None
        self._changed = Condition()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if self._owner is not None:
            limit = (None if timeout < 0 else timeout) if blocking else 0.0
            if not self._changed.wait_for(lambda: self._owner is None, limit):
                return False
        self._owner = scheduler().current
        return True

    def release(self) -> None:
        self._owner = None
        self._changed.notify_all()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.release()


class SimpleQueue:
    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self._changed = Condition()

    def put(self, item: Any) -> None:
        self._items.append(item)
        self._changed.notify_all()

    def get(self) -> Any:
        self._changed.wait_for(lambda: self._items)
        return self._items.popleft()

    def empty(self) -> bool:
        return not self._items


class Thread:
    def __init__(self, target: Callable[..., Any], name: str = "", daemon: bool = False) -> None:
        self._target = target

    def start(self) -> None:
        world = scheduler()
        world.spawn(world.running().process, self._target)
