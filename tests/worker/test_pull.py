"""The puller's loop."""

import threading
from types import SimpleNamespace

import redis

from promptmill.worker.in_flight import InFlight
from promptmill.worker.pull import Puller


class Impatient(threading.Event):
    """Counts the pauses in place of making them; set after the twentieth."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.pauses.append(timeout or 0.0)
        if len(self.pauses) == 20:
            self.set()
        return self.is_set()


class Unready(Puller):
    def _get_ready(self) -> None:
        self._compiler = SimpleNamespace(failures=list)  # type: ignore[assignment]


def test_pauses_while_redis_is_away_grow_and_are_drawn():
    def away(**_: object) -> None:
        raise redis.ConnectionError("refused")

    outputs = SimpleNamespace(to_pass_over=list)
    host = SimpleNamespace(
        stopping=Impatient(), in_flight=InFlight(1), queue=SimpleNamespace(claimable=away), outputs=outputs
    )
    Unready(host).run()  # type: ignore[arg-type]
    pauses = host.stopping.pauses
    assert len(set(pauses)) > 15, "workers that lose Redis together do not come back together"
    assert max(pauses[:2]) < 0.5
    assert 1 < max(pauses) <= 15
