"""What a device could do at most, in 10^12 operations per second: the maker's figure, or a product measured here."""

import time
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

PEAKS: dict[str, float] = {
    "TPU v4": 275.0,
    "TPU v5 lite": 197.0,
    "TPU v5p": 459.0,
    "TPU v5": 459.0,
    "TPU v6 lite": 918.0,
    "NVIDIA A100": 312.0,
    "NVIDIA H100 PCIe": 756.0,
    "NVIDIA H100": 989.0,
    "NVIDIA H200": 989.0,
    "NVIDIA B200": 2250.0,
    "NVIDIA L4": 121.0,
    "NVIDIA L40S": 362.0,
}
"""Dense bfloat16, by how JAX's `device_kind` begins (the longest that fits); from cloud.google.com/tpu/docs and
NVIDIA's data sheets, without sparsity."""

SIDE = 1024  # of the matrices of a measured product
REPEATS = 5


@dataclass(frozen=True)
class Ceiling:
    """Per device, and whose figure it is. `shared`: by all devices of the host together, as virtual ones of a CPU."""

    tera_per_s: float
    source: str
    shared: bool = False


def ceiling_of(device: jax.Device) -> Ceiling:
    """The maker's bfloat16 peak where the kind is known, else the best of some products of matrices in float32."""
    kind = str(device.device_kind)
    known = [name for name in PEAKS if kind.startswith(name)]
    if known:
        name = max(known, key=len)
        return Ceiling(PEAKS[name], f"bfloat16 peak of {name}, {PEAKS[name]:g} TFLOP/s per device")
    tera = _measured(device)
    return Ceiling(
        tera,
        f"measured here: a float32 product of {SIDE} x {SIDE} matrices, {tera:.3g} TFLOP/s",
        device.platform == "cpu",
    )


def _measured(device: jax.Device) -> float:
    matrix: Any = jax.device_put(jnp.ones((SIDE, SIDE), jnp.float32), device)
    product = jax.jit(lambda one: one @ one)
    jax.block_until_ready(product(matrix))
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        jax.block_until_ready(product(matrix))
        seconds.append(time.perf_counter() - started)
    return 2 * SIDE**3 / min(seconds) / 1e12
