"""Compiled for a TPU's four chips, where none is: what `test_tpu.py` runs in a process of its own.

python -m tests.worker.tpu_programs PROGRAM FOLDER      writes FOLDER/PROGRAM.hlo
"""

import os
import sys
from pathlib import Path

from benchmarks.ahead import WITHOUT_TPU, devices_of, for_tpu, model_of_shapes
from benchmarks.tpu_schedule import CHIPS

CHIP = CHIPS["v5e"]


def whole() -> str:
    """The tiny model's guided program, a batch of two on each chip."""
    import jax.numpy as jnp

    model = model_of_shapes("tiny", devices_of(CHIP), jnp.float32)
    with for_tpu():
        return model.compile(width=64, height=64, guided=True, per_device_batch=2).compiled_text()


def attention() -> str:
    """SDXL's largest attention at 1024 pixels."""
    import jax
    import jax.numpy as jnp

    from promptmill.worker.devices import Devices
    from promptmill.worker.nn import attention as module

    heads = jax.ShapeDtypeStruct((2, 4096, 10, 64), jnp.bfloat16, sharding=Devices.of(devices_of(CHIP)[:1]).whole)
    with for_tpu():
        return jax.jit(module.attention).lower(heads, heads, heads).compile().as_text() or ""


if __name__ == "__main__":
    os.environ |= WITHOUT_TPU
    name, folder = sys.argv[1:]
    (Path(folder) / f"{name}.hlo").write_text({"whole": whole, "attention": attention}[name]())
