"""The keeper's thread: renews leases, gives back what nobody here knows of, reports, notices a hung device."""

import logging
import time

import redis

from promptmill.producer.queue.workers import REPORT_EVERY_S, Workers
from promptmill.worker.host import Host

logger = logging.getLogger(__name__)

WAIT_FOR_CLAIM_S = 1.0  # for a claim that is on its way; one that hangs must not keep leases from being renewed


class Keeper:
    """Its thread runs `run`, until the worker gives up."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._renewed = self._reported = 0.0  # time.monotonic()

    def run(self) -> None:
        host = self._host
        renew_every_s = host.settings.lease_s / 3
        while not host.give_up.wait(min(renew_every_s, REPORT_EVERY_S) / 2):
            now = time.monotonic()
            try:
                if now - self._renewed >= renew_every_s:
                    self._renew()
                    self._release_unknown()
                    Workers(host.keeping_client).sweep(host.settings.lease_s)
                    self._renewed = now
                if now - self._reported >= REPORT_EVERY_S:
                    Workers(host.keeping_client).report(host.report.now())
                    host.revoked.look()
                    self._reported = now
            except redis.RedisError as error:
                logger.warning("leases could not be renewed: %s", error)
                host.compiling.was_away()
            self._watch()
            if host.is_orphaned() and not host.stopping.is_set():
                logger.warning("the process that started this worker is gone: stopping")
                host.end()

    def _watch(self) -> None:
        """Start the process anew if the device has hung for too long: no call to it would ever end."""
        limit_s, fetching = self._host.settings.hang_timeout_s, self._host.fetching
        if limit_s and fetching and time.monotonic() - fetching[1] > limit_s:
            self._host.start_anew(fetching[0].claims, f"the device took more than {limit_s:.0f} s for a batch")

    def _renew(self) -> None:
        if making := self._host.making:
            self._host.marks.renew(making)
        lost = self._host.leases.renew(self._host.in_flight.held())
        for claim in lost:
            # Another worker has it by now. What is under way is finished: the output takes one of the two.
            logger.warning("lost the lease of job %s (%s/%d)", claim.job.id, claim.run, claim.index)
        self._host.in_flight.lose(lost)
        if lost:
            self._host.observer.lost(lost)

    def _release_unknown(self) -> None:
        """Give back what Redis counts as this worker's and it does not hold: the answer to its claim was lost."""
        host = self._host
        if not host.claiming.acquire(timeout=WAIT_FOR_CLAIM_S):  # at the next renewal
            return
        try:
            count = host.leases.release_all_but(host.in_flight.held())
        finally:
            host.claiming.release()
        if count:
            logger.warning("gave back jobs whose claim was never answered: %d", count)
