"""Bugs that a queue like ours has had, here or elsewhere, each as a small patch. A simulation that misses one is blind.

Each entry puts its bug in for the length of a block.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from promptmill.producer.outputs import gcs
from promptmill.producer.outputs.output import Put
from promptmill.producer.queue import queue, scripts
from promptmill.worker.render import Finisher
from tests.simulation import world

Plant = Callable[[], AbstractContextManager[None]]


@contextlib.contextmanager
def attribute(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextlib.contextmanager
def script(name: str, text: str, planted: str) -> Iterator[None]:
    """A script in which `planted` stands for `text`."""
    really = scripts.source

    def source(wanted: str) -> str:
        whole = really(wanted)
        if wanted != name:
            return whole
        assert text in whole, f"{name}.lua has changed: plant its bug anew"
        return whole.replace(text, planted)

    with attribute(scripts, "source", source):
        world.forget_scripts()
        yield
    world.forget_scripts()


def _ack_before_upload() -> AbstractContextManager[None]:
    really: Any = Finisher._put

    def put(self: Any, rendered: Any) -> Any:
        self._patiently(lambda: self._queue.done(rendered.claim))
        return really(self, rendered)

    return attribute(Finisher, "_put", put)


def _no_precondition() -> AbstractContextManager[None]:
    really: Any = gcs.Bucket._upload

    def upload(self: Any, blob: Any, where: str, content: Any, content_type: str, generation: int) -> None:
        really(self, blob, where, content, content_type, None)

    return attribute(gcs.Bucket, "_upload", upload)


PLANTED: Mapping[str, Plant] = {
    "ack before upload": _ack_before_upload,
    "no renewal": partial(attribute, queue.JobQueue, "renew", lambda self, claims: []),
    "412 taken for success": partial(attribute, gcs, "judge", lambda *what: Put.ADOPTED),
    "upload without precondition": _no_precondition,
    "re-enter race": partial(script, "reenter", "  if settled then", "  if true then"),
    "settle without bit": partial(
        script, "settle", "if redis.call('SETBIT', key(run, 'done'), index, 1) == 1 then return 0 end", ""
    ),
    "release without count": partial(script, "release", "p[1][4] - (1 - ARGV[2])", "p[1][4] - 1"),
    "a chunk entered twice": partial(script, "enqueue", "if said[1] ~= ARGV[2] then", "if false then"),
    "a job that kills is tried for ever": partial(attribute, queue, "MAX_DELIVERIES", 1000),
}
"""A bug's name -> what plants it."""
