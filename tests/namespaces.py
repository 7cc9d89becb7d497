"""Network namespaces of this machine, and cables between them that can be cut (Linux, root)."""

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from itertools import count

import pytest

NOWHERE = "02:00:00:00:00:01"  # an address of no card: who gets a packet for it drops it

_NUMBERS = count()


class Namespace:
    """A host of its own, of a name that no other process uses."""

    def __init__(self, name: str) -> None:
        self.name = f"pm-{os.getpid()}-{name}"

    def command(self, *words: str) -> Sequence[str]:
        """A command line that runs in there."""
        return ("ip", "netns", "exec", self.name, *words)


class Cable:
    """From a host, at the address `near`, to another or to this machine itself (None), at `far`."""

    def __init__(self, host: Namespace, other: Namespace | None) -> None:
        number = (os.getpid() * 8 + next(_NUMBERS)) % 32768
        # 198.18.0.0/15 is kept for tests (RFC 2544): four addresses for each cable, by the process' id.
        prefix = f"198.{18 + number // 16384}.{number // 64 % 256}"
        self.near, self.far = (f"{prefix}.{number % 64 * 4 + last}" for last in (1, 2))
        self._host, self._near_card, self._far_card = host, f"pmn{number}", f"pmf{number}"
        far_side = ("-n", other.name) if other else ()
        ends = (self._far_card, "type", "veth", "peer", "name", self._near_card, "netns", host.name)
        ip(*far_side, "link", "add", *ends)
        near_side = ("-n", host.name)
        for side, card, address in (near_side, self._near_card, self.near), (far_side, self._far_card, self.far):
            ip(*side, "address", "add", f"{address}/30", "dev", card)
            ip(*side, "link", "set", card, "up")

    def cut(self) -> None:
        """Nothing comes or goes, and nobody is told: no connection is closed."""
        ip("-n", self._host.name, "link", "set", self._near_card, "down")

    def cut_towards_far(self) -> None:
        """What `far` sends arrives, and no answer does: packets to it get the address of no card."""
        neighbour = ("neigh", "replace", self.far, "lladdr", NOWHERE, "nud", "permanent", "dev", self._near_card)
        ip("-n", self._host.name, *neighbour)

    def mend(self) -> None:
        ip("-n", self._host.name, "link", "set", self._near_card, "up")
        ip("-n", self._host.name, "neigh", "flush", "dev", self._near_card, "nud", "permanent")

    def remove(self) -> None:
        """At once: a namespace goes only with the last connection that waits for an answer in it."""
        ip("-n", self._host.name, "link", "delete", self._near_card)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextlib.contextmanager
def namespaces(*names: str) -> Iterator[list[Namespace]]:
    """Namespaces that are removed in the end, and cables with them; skipped where this machine gives none."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("only root may make a network namespace")
    made = list(map(Namespace, names))
    try:
        try:
            for one in made:
                ip("netns", "add", one.name)
                ip("-n", one.name, "link", "set", "lo", "up")
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no network namespaces here: {getattr(error, 'stderr', error)!r}")
        yield made
    finally:
        for one in made:
            subprocess.run(["ip", "netns", "delete", one.name], check=False, stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def cable(host: Namespace, other: Namespace | None) -> Iterator[Cable]:
    """A cable that is removed in the end."""
    made = Cable(host, other)
    try:
        yield made
    finally:
        made.remove()
