"""SDXL compiled for an H100 on a machine that has no GPU: how many kernels run, and how much they move.

    pip install 'promptmill[cuda]'    (in an environment of its own)
    export JAX_PLATFORMS=cuda,cpu JAX_SKIP_CUDA_CONSTRAINTS_CHECK=1
    python -m benchmarks.gpu_program [--write docs/performance.md]

XLA chooses among kernels by timing them, which it cannot do here, so that is off; and no time is predicted. What is
fused, cast, copied and turned around can be read. An array of which a kernel reads a slice counts whole. "At least" is
the larger of what is moved at the memory's speed and of the operations at the peak, for all kernels of a part together.
"""

import argparse
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from jax.experimental import topologies

from benchmarks.ahead import PARTS, SCOPES, model_of_shapes, parts, traced
from benchmarks.random_sdxl import SIZES
from benchmarks.report import circumstances, table, write_section
from benchmarks.tpu_schedule import Instruction, instructions
from promptmill.worker.ceilings import PEAKS
from promptmill.worker.flops import count_flops
from promptmill.worker.sdxl.program import Model

TARGET = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 device_memory_size: 84929347584
  cuda_compute_capability { major: 9 }
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
"""What XLA is told of the device; from NVIDIA's data sheet and CUDA's programming guide."""
GB_PER_S = 3350
HEADER = ["part", "images", "kernels", "moved, GB", "beside weights, GB", "TFLOP", "at least, ms"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--model", choices=SIZES, default="full")
    parser.add_argument("--size", type=int, default=1024, help="pixels of square images")
    parser.add_argument("--batch", type=int, default=1, help="images of a device")
    parser.add_argument("--vae-dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--write", type=Path, help="a Markdown file, into whose section the tables go")
    options = parser.parse_args()
    devices = topologies.get_topology_desc("h100", "cuda", topology="1x1x1", target_config=TARGET).devices
    model = model_of_shapes(options.model, list(devices), vae_dtype=jnp.dtype(options.vae_dtype))
    text = _text(*_tables(model, options), options)
    print(text)
    if options.write:
        write_section(options.write, "compiled for a GPU", text)


def _tables(model: Model, options: argparse.Namespace) -> tuple[list[list[str]], list[list[str]]]:
    """A row for each part: in all, and by layer."""
    rows, kinds = [], []
    for name, part in parts(model, options.size, options.batch).items():
        if name in options.parts:
            made = traced(model, part)
            compiled = made.lower().compile(compiler_options={"xla_gpu_autotune_level": 0})
            run = list(instructions(compiled.as_text(), {}))
            rows.append([name, str(options.batch), *_cells(run, compiled, count_flops(made.jaxpr, trips=1))])
            moved = _by_kind(run)
            kinds.append([name, *(f"{moved[kind]:.2f}" for kind in (*SCOPES, "the rest"))])
    return rows, kinds


def _cells(run: list[Instruction], compiled: Any, flops: float) -> list[str]:
    moved = sum(_gb(each) for each in run)
    least = max(moved / GB_PER_S, flops / PEAKS["NVIDIA H100"] / 1e12)
    beside = compiled.memory_analysis().temp_size_in_bytes / 1e9
    counted = f"{sum(each.times for each in run):,}"
    return [counted, f"{moved:.1f}", f"{beside:.2f}", f"{flops / 1e12:.2f}", f"{1000 * least:.1f}"]


def _by_kind(run: list[Instruction]) -> Mapping[str, float]:
    moved: dict[str, float] = defaultdict(float)
    for each in run:
        scopes = [part for part in each.source.split("/") if part in SCOPES]
        moved[scopes[-1] if scopes else "the rest"] += _gb(each)
    return moved


def _gb(each: Instruction) -> float:
    return each.times * each.moved / 1e9


def _text(rows: list[list[str]], kinds: list[list[str]], options: argparse.Namespace) -> str:
    about = f"{options.model} size, {options.size} x {options.size} pixels, bfloat16, the VAE in {options.vae_dtype}"
    return f"""`python -m benchmarks.gpu_program`: {about}. Compiled for an H100, run on none.
{circumstances(("jax", "jax-cuda12-plugin"))}.

{table(HEADER, rows)}

GB moved, by layer:

{table(["part", *SCOPES, "the rest"], kinds)}"""


if __name__ == "__main__":
    main()
