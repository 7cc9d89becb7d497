"""What a worker holds: slots for batches in flight, and the claims in them. One object, shared by the threads.

    with in_flight.slot(timeout_s) as slot:        the puller: room for one batch, or None
        in_flight.hold(slot, claims)               from here on their leases are renewed
    in_flight.fetched(claims)                      the fetcher: the device is done with their batch
    with in_flight.leaving(claims):                whoever takes them to their end: the one way out
        ...

A slot is free again when the puller has left its block and the last of its claims has left. Of all slots DEVICE_DEPTH
are for batches that the device is not done with: so a worker claims no more than it renders next, and still goes on
where images take longer to upload than to render.
"""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from promptmill.producer.queue.queue import Claim

DEVICE_DEPTH = 3
"""Batches on the device: one that it computes, and two that wait: a short one is computed sooner than one prepared."""


@dataclass(eq=False)
class Slot:
    """Room for one batch."""

    width: int = 1
    """How many slots it takes: one, all of them for a batch that must be alone, none for what needs no device."""
    users: int = 1
    """The puller while it fills the slot, and each claim in it."""
    for_device: bool = True
    """Whether the device is not done with it yet."""


@dataclass(eq=False)
class _Held:
    claim: Claim
    slot: Slot
    lost: bool = False


class InFlight:
    """The slots and claims of one worker. Thread-safe."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._free = slots
        self._for_device = 0
        self._changed = threading.Condition()
        self._held: dict[int, _Held] = {}  # by the claim's identity: an entry may be claimed twice, after a long sleep

    @contextlib.contextmanager
    def slot(self, timeout_s: float) -> Iterator[Slot | None]:
        """Room for a batch, or None where there is none within the time."""
        with self._changed:
            if self._changed.wait_for(lambda: self._free >= 1 and self._for_device < DEVICE_DEPTH, timeout_s):
                self._free -= 1
                self._for_device += 1
                slot = Slot()
            else:
                slot = None
        try:
            yield slot
        finally:
            if slot is not None:
                with self._changed:
                    self._leave(slot)

    @contextlib.contextmanager
    def beside(self) -> Iterator[Slot]:
        """Room for claims that need no device; there is always some."""
        slot = Slot(width=0, for_device=False)
        try:
            yield slot
        finally:
            with self._changed:
                self._leave(slot)

    def hold(self, slot: Slot, claims: Sequence[Claim]) -> None:
        """Puts claims into a slot; only within its block."""
        with self._changed:
            self._held.update({id(claim): _Held(claim, slot) for claim in claims})
            slot.users += len(claims)

    def fetched(self, claims: Sequence[Claim]) -> None:
        """The device is done with these claims' batch: another may take its place there."""
        with self._changed:
            for slot in {self._held[id(claim)].slot for claim in claims if id(claim) in self._held}:
                self._off_device(slot)

    def make_alone(self, slot: Slot, timeout_s: float) -> bool:
        """Takes all the other slots too: nothing else is in flight. False where others do not end within the time."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._free == self.slots - slot.width, timeout_s):
                return False
            self._free, slot.width = 0, self.slots
            return True

    @contextlib.contextmanager
    def leaving(self, claims: Sequence[Claim]) -> Iterator[None]:
        """At the end of the block, however it ends, the claims are held no more. Nothing else takes them out."""
        try:
            yield
        finally:
            with self._changed:
                for held in [self._held.pop(id(claim)) for claim in claims if id(claim) in self._held]:
                    self._leave(held.slot)

    def lose(self, claims: Sequence[Claim]) -> None:
        """Another worker has these claims by now: they are finished here, and neither renewed nor given back."""
        with self._changed:
            for claim in claims:
                if id(claim) in self._held:
                    self._held[id(claim)].lost = True

    def remaining(self, claims: Sequence[Claim]) -> list[Claim]:
        """Those of the claims that have not left."""
        with self._changed:
            return [claim for claim in claims if id(claim) in self._held]

    def held(self) -> list[Claim]:
        """The claims whose leases are this worker's."""
        with self._changed:
            return [held.claim for held in self._held.values() if not held.lost]

    def wait_until_empty(self, timeout_s: float) -> bool:
        """Whether all claims have left within the time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._held, timeout_s)

    def _leave(self, slot: Slot) -> None:
        slot.users -= 1
        if slot.users == 0:
            self._free += slot.width
            self._off_device(slot)
        self._changed.notify_all()

    def _off_device(self, slot: Slot) -> None:
        if slot.for_device:
            slot.for_device = False
            self._for_device -= 1
            self._changed.notify_all()
