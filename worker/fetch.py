"""The fetcher's thread: waits for the device, and gives each image to a thread of Celery's pool."""

import time

from promptmill.worker.host import Host
from promptmill.worker.observers import timed
from promptmill.worker.render import Rendered


class Fetcher:
    """Its thread runs `run`, until the process ends."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._free_since = 0.0
        """When the device was done with the batch before (time.monotonic(), seconds)."""

    def run(self) -> None:
        while True:
            batch = self._host.on_device.get()
            self._host.fetching = batch, time.monotonic()
            try:
                batch.wait()
                rendered_at = time.monotonic()
                with timed(self._host.observer, "fetch", len(batch.claims)):
                    images = batch.fetch()
            except Exception as error:  # noqa: BLE001 - an XLA error, say: the next batch goes on
                self._host.lose(batch.program, batch.claims, error)
                self._free_since = time.monotonic()
                continue
            finally:
                self._host.fetching = None
            self._host.in_flight.fetched(batch.claims)
            busy_s, self._free_since = rendered_at - max(batch.started, self._free_since), rendered_at
            self._host.observer.spent("device", busy_s, len(batch.claims))
            self._host.observer.batched(batch.claims[0].shape, len(batch.claims), batch.program.batch, busy_s)
            for rendered in images:
                self._hand_over(rendered)

    def _hand_over(self, rendered: Rendered) -> None:
        try:
            self._host.pool.apply_async(self._finish, (rendered,))
        except RuntimeError:  # the pool was shut before us: a second Ctrl-C
            with self._host.in_flight.leaving([rendered.claim]):
                self._host.finisher.release([rendered.claim])

    def _finish(self, rendered: Rendered) -> None:
        """In a thread of the pool."""
        with self._host.in_flight.leaving([rendered.claim]):
            if self._host.finisher.finish(rendered):
                self._host.report.landed()
