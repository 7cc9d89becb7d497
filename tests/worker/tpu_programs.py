"""Compiled for a TPU's four chips, where none is: what `test_tpu.py` runs in a process of its own.

`python -m tests.worker.tpu_programs FOLDER` writes the HLO of each program into it.
"""

import os
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.ahead import WITHOUT_TPU, compiling_for, devices_of, model_of_shapes
from benchmarks.tpu_schedule import CHIPS
from promptmill.worker.devices import Devices
from promptmill.worker.nn.attention import attention
from promptmill.worker.sdxl.generate import Stage

BIG = "guided, of more tokens"
KINDS: dict[str, dict[str, Any]] = {
    "guided": {},
    "unguided": {"guided": False},
    "stochastic": {"stochastic": True},
    "interval": {"interval": True},
    "cached": {"cached": True},
    "long prompts": {"prompt_windows": 2},
    "base of a refiner": {"stage": Stage(end="latents")},
    "refiner": {"stage": Stage(start="latents")},
    BIG: {"width": 256, "height": 256},
}
"""What `Model.compile` takes."""
DTYPES: dict[str, dict[str, Any]] = {
    "int8": {"quantize": "int8"},
    "float8": {"quantize": "float8"},
    "vae in bfloat16": {"vae_dtype": jnp.bfloat16},
}
SMALL, LARGE = "SDXL's small attention", "SDXL's large attention"


def programs() -> dict[str, str]:
    """The tiny model's programs, a batch of two on each chip, and SDXL's attention over pixels at 1024 pixels."""
    devices = devices_of(CHIPS["v5e"])
    plain = model_of_shapes("tiny", devices)
    models = dict.fromkeys(KINDS, plain) | {
        name: model_of_shapes("tiny", devices, **how) for name, how in DTYPES.items()
    }
    shape = {"width": 64, "height": 64, "guided": True, "per_device_batch": 2}
    with compiling_for("tpu"):
        made = {name: model.compile(**shape | KINDS.get(name, {})).compiled_text() for name, model in models.items()}
        return made | {SMALL: _attention(256, 20, devices), LARGE: _attention(4096, 10, devices)}


def _attention(tokens: int, heads: int, devices: list[jax.Device]) -> str:
    parts = [jax.ShapeDtypeStruct((2, tokens, heads, 64), jnp.bfloat16, sharding=Devices.of(devices[:1]).whole)] * 3
    return jax.jit(lambda *parts: attention(*parts)).lower(*parts).compile().as_text() or ""


if __name__ == "__main__":
    os.environ |= WITHOUT_TPU
    for name, text in programs().items():
        (Path(sys.argv[1]) / f"{name}.hlo").write_text(text)
