"""Attention over pixels as XLA's compiler schedules it for a TPU: XLA's own, and Pallas' in our blocks and in its own.

    TPU_LIBRARY_PATH=LIBTPU/libtpu/libtpu.so python -m benchmarks.tpu_attention [--write docs/performance.md]

What decides the rows of worker/nn/attention.py. How libtpu comes, and what a prediction is: `ahead.py`.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp

from benchmarks.ahead import compile_ahead, compiling_for, devices_of, dumping, milliseconds, shape
from benchmarks.report import circumstances, table, write_section
from benchmarks.tpu_schedule import CHIPS, Chip
from promptmill.worker.devices import Devices
from promptmill.worker.nn import attention as module

SHAPES = {4096: 10, 4032: 10, 2304: 10, 1024: 20, 1008: 20, 576: 20, 256: 20}
"""Tokens and heads of 64, at 1024 x 1024, 1152 x 896, 768 x 768 and 512 x 512 pixels; two passes of an image."""
OURS, DEFAULT = "Pallas, our blocks", "Pallas, blocks of 128"
WAYS: dict[str, Callable[..., Any]] = {
    "XLA": partial(module.xla_attention, key_lengths=None, causal=False),
    OURS: module.pallas_flash,
    DEFAULT: module.pallas_flash,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chips", nargs="+", choices=CHIPS, default=list(CHIPS))
    parser.add_argument("--tokens", nargs="+", type=int, choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--write", type=Path, help="a Markdown file, into whose section the table goes")
    options = parser.parse_args()
    with dumping() as dump:
        rows = [_row(name, each, SHAPES[each], dump) for name in options.chips for each in options.tokens]
    made = table(["chip", "tokens", "heads", *(f"{way}, ms" for way in WAYS)], rows)
    about = (
        f"`python -m benchmarks.tpu_attention`: bfloat16. Predicted, not measured. {circumstances(('jax', 'libtpu'))}."
    )
    text = f"{about}\n\n{made}"
    print(text)
    if options.write:
        write_section(options.write, "attention ahead", text)


def _row(name: str, tokens: int, heads: int, dump: Path) -> list[str]:
    return [name, str(tokens), str(heads), *(_cell(way, tokens, heads, CHIPS[name], dump) for way in WAYS)]


def _cell(way: str, tokens: int, heads: int, chip: Chip, dump: Path) -> str:
    try:
        return f"{_predicted(way, tokens, heads, chip, dump):.2f}"
    except jax.errors.JaxRuntimeError as error:  # jaxlib cannot print all that a newer libtpu compiles
        print(f"{way}, {tokens} tokens: {error}", file=sys.stderr)
        return "not told"


def _predicted(way: str, tokens: int, heads: int, chip: Chip, dump: Path) -> float:
    parts = [shape((2, tokens, heads, 64), jnp.bfloat16, Devices.of(devices_of(chip)[:1]))] * 3
    blocks = (128,) if way == DEFAULT else module.BLOCKS
    with mock.patch.object(module, "BLOCKS", blocks), compiling_for("tpu"):
        traced = jax.jit(lambda *parts: WAYS[way](*parts)).trace(*parts)  # a new one each time: BLOCKS change
    return milliseconds(compile_ahead(traced, dump).instructions, chip)


if __name__ == "__main__":
    main()
