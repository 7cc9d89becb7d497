"""Several hosts as one, for a model that does not fit the accelerators of one: the seam, and no more.

A worker has one host, and its devices never wait for one another (devices.py). Where a model is too large for that, the
hosts of a slice become one worker: `jax.distributed` joins their processes, weights are spread over all devices, and
XLA puts in the collectives. One host leads: it alone claims, prepares and settles. The others run the same programs in
the same order with the leader's inputs. Not wired into `promptmill worker`: no model that we have needs it.

    jax.distributed.initialize(...)
    slice = Slice.of(jax.devices())
    model = slice.spread(Model.load(folder, devices=jax.local_devices(backend="cpu")[:1]))
    program = model.compile(width=1024, height=1024, guided=True)
    result = program.run(program.prepare(requests))             leader
    result = program.run(program.prepare([any_request]))        the others: theirs are not looked at
"""

from dataclasses import dataclass, replace
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding

from promptmill.worker.devices import AXIS, Devices

M = TypeVar("M")


@dataclass(frozen=True)
class Slice(Devices):
    """All devices of all hosts as a mesh of one axis: weights lie spread over them, a batch whole on each."""

    @property
    def leads(self) -> bool:
        """Whether this process claims and settles for all."""
        return jax.process_index() == 0

    @property
    def split(self) -> NamedSharding:
        """A batch is not split: each device computes its part of every layer."""
        return self.whole

    def put(self, batch: Any) -> Any:
        """The leader's arrays (a tree of them), on every device of every host. All hosts call it, with equal shapes."""
        told = multihost_utils.broadcast_one_to_all(batch, is_source=self.leads)
        return jax.tree.map(lambda part: _placed(part, self.whole), told)

    def jit(self, function: Any) -> Any:
        """`function(weights, batch)` over the whole slice; what comes out is whole on each host."""
        return jax.jit(function, out_shardings=self.whole)

    def compile(
        self, function: Any, weights: Any, shapes: Any, *, name: str | None = None, sparing: bool = False
    ) -> Any:
        """As on one host, but made anew by each process: an executable of several is not kept."""
        return super().compile(function, weights, shapes, sparing=sparing)

    def spread(self, model: M) -> M:
        """The model, whose weights this host has whole in its memory, spread over the slice."""
        weights = jax.tree.map(lambda part: _placed(part, self._part_of(part)), model.weights)  # type: ignore[attr-defined]
        return replace(model, weights=weights, devices=self)  # type: ignore[type-var]

    def _part_of(self, weight: jax.Array) -> NamedSharding:
        """The longest axis that the devices divide; a weight that has none is whole on each."""
        axes = [axis for axis, length in enumerate(weight.shape) if length % self.count == 0]
        longest = max(axes, key=lambda axis: weight.shape[axis], default=None)
        return NamedSharding(self.mesh, jax.P(*(AXIS if axis == longest else None for axis in range(weight.ndim))))


def _placed(value: Any, sharding: NamedSharding) -> jax.Array:
    """What every host has, as one array of the slice. `device_put` would compare the hosts' values, in any order."""
    host = np.asarray(value)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])
