"""What Redis does in one step: the Lua scripts of ledger.py, queue.py, compiling.py and control.py, one file each.

Each change of state is one script, so a crash between two steps leaves every job and every count either where it was or
where it was going. A script's contract stands on top of its file; lib.lua, which all may use, is put before each.

A run's score among the turns of a shape is its rank (0 urgent, 1 normal, 2 low, 3 paused) times 10^14, and on top of
that a count which grows by each job that is claimed: among equals, who was served least is served next. A run that is
new, or comes back after it had nothing to claim, stands behind the last one. So it is owed nothing for the time before,
and no number of small runs that keep coming can starve a large one.
"""

from functools import cache, cached_property
from importlib.resources import files
from typing import Any

import redis
from redis.client import NEVER_DECODE


@cache
def source(name: str) -> str:
    """The whole text of a script, as Redis gets it. Raises FileNotFoundError."""
    folder = files(__package__)
    return f"{(folder / 'lib.lua').read_text()}\n{(folder / f'{name}.lua').read_text()}"


class Script:
    """A script that a Redis runs in one step: `claim` is claim.lua."""

    def __init__(self, client: redis.Redis, name: str) -> None:
        self._client: Any = client
        self._name = name

    @cached_property
    def _script(self) -> Any:
        """Registered when it is first run: a client has many scripts, uses few, and hashes each."""
        return self._client.register_script(source(self._name))

    def raw(self, *args: Any) -> Any:
        """Run it; what it returns comes as bytes, for it may hold anything."""
        try:
            return self._client.execute_command("EVALSHA", self._script.sha, 0, *args, **{NEVER_DECODE: True})
        except redis.exceptions.NoScriptError:
            return self._client.execute_command("EVAL", self._script.script, 0, *args, **{NEVER_DECODE: True})

    def __call__(self, *args: Any, client: Any = None) -> Any:
        """Run it. With a pipeline as `client`, when that is executed."""
        return self._script(args=args, client=client)
