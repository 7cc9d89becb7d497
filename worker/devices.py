"""This host's accelerators: the one place that knows how many there are, and how work is spread over them.

    devices = Devices.of()                                    all of this host's
    weights = load_weights(..., sharding=devices.whole)       the same on each
    program = devices.compile(function, weights, shapes)      ahead of time
    result = program(weights, devices.put(inputs))            returns at once

This is what `jax.pmap` did: the same program on each device, weights on all of them, the batch split. `shard_map` is
its successor. A function that is run so holds no collective, so no device ever waits for another.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from promptmill.worker.executables import kept_or_made

AXIS = "device"

SPARING = {"cpu": {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}}
"""XLA's options, by platform, for a program that is to take little memory. On a CPU it otherwise computes first what
could be computed at the same time: all kernels of a quantised network would be converted before its first layer."""


@dataclass(frozen=True)
class Devices:
    """Devices as a mesh of one axis."""

    mesh: Mesh

    @classmethod
    def of(cls, devices: Sequence[jax.Device] | None = None) -> Self:
        """These devices, or all of this host's."""
        return cls(Mesh(np.array(list(devices or jax.local_devices())), (AXIS,)))

    @property
    def count(self) -> int:
        return self.mesh.size

    @property
    def platform(self) -> str:
        """`cpu`, `gpu` or `tpu`."""
        return str(self.mesh.devices.flat[0].platform)

    @property
    def whole(self) -> NamedSharding:
        """For what lies on every device."""
        return NamedSharding(self.mesh, jax.P())

    @property
    def split(self) -> NamedSharding:
        """For what is split along its first axis, the batch."""
        return NamedSharding(self.mesh, jax.P(AXIS))

    def put(self, batch: Any) -> Any:
        """Arrays (a tree of them) whose first axis is a multiple of `count`, on their way, to each device its part."""
        return jax.device_put(batch, self.split)

    def put_whole(self, tree: Any) -> Any:
        """Arrays (a tree of them), whole on each device, when they are there."""
        return jax.block_until_ready(jax.device_put(tree, self.whole))

    def jit(self, function: Any) -> Any:
        """`function(weights, batch)` once per device: weights whole, the batch and what comes out split."""
        whole, split = jax.P(), jax.P(AXIS)
        return jax.jit(
            jax.shard_map(function, mesh=self.mesh, in_specs=(whole, split), out_specs=split, check_vma=False)
        )

    def compile(
        self, function: Any, weights: Any, shapes: Any, *, name: str | None = None, sparing: bool = False
    ) -> Any:
        """`jit` of the function, compiled now for these weights and for inputs of these shapes.

        Under a `name` that says all that is static in the function, and whether it is `sparing`, an earlier process may
        have compiled it. A sparing program takes less memory where XLA has a choice.
        """
        options = SPARING.get(self.platform) if sparing else None

        def make() -> Any:
            return self.jit(function).lower(weights, shapes).compile(compiler_options=options)

        return make() if name is None else kept_or_made(name, (weights, shapes), list(self.mesh.devices.flat), make)


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device had too little memory: XLA says so by a status code."""
    return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
