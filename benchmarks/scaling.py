"""Weak scaling on one host: 1, 2, 4 and 8 devices, each with as much to do, through the whole worker; and memory.

    python -m benchmarks.scaling [--devices 1 2 4 8] [--write docs/performance.md]

Devices are virtual ones of the CPU (`--xla_force_host_platform_device_count`), which share its cores: so the worker is
that of benchmarks/device_busy.py, whose program sleeps, and what is seen is whether everything around the program
keeps up as batches grow with the devices. Memory is of a real model with random weights: the peak of host memory while
it is loaded, per device, over the weights.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.device_busy import Case, measure
from benchmarks.random_sdxl import write_random_sdxl
from benchmarks.report import circumstances, table, write_section

SECTION = "scaling"
PACKAGES = ("jax", "flax", "celery", "redis")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--case", type=Case.read, default=Case(1.0, 2, 64), help="seconds:batch per device:side")
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--tiny", action="store_true", help="memory of the tiny model, to try the script")
    parser.add_argument("--write", type=Path, help="a Markdown file, into whose section the table goes")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(memory(options.child)))
        return
    with tempfile.TemporaryDirectory() as folder:
        model = write_random_sdxl(Path(folder) / "model", tiny=options.tiny, size="mid")
        rows = [_row(options, count, model) for count in options.devices]
    head = ["devices", "batch", "images/s offered", "images/s", "busy", "CPU, ms/job", "weights, MB", "peak / weights"]
    text = f"""
`python -m benchmarks.scaling`: {circumstances(PACKAGES)}. {options.case.seconds:g} s per batch of {options.case.batch}
images of {options.case.side} pixels per device.

{table(head, rows)}
"""
    print(text)
    if options.write:
        write_section(options.write, SECTION, text)


def _row(options: argparse.Namespace, count: int, model: Path) -> list[str]:
    print(f"{count} devices", file=sys.stderr)
    case = Case(options.case.seconds, options.case.batch * count, options.case.side)
    jobs = options.batches * case.batch
    told = measure(case, jobs, jobs, devices=count)
    loaded = _load(model, count)
    rate = case.batch / case.seconds
    return [
        str(count),
        str(case.batch),
        f"{rate:.0f}",
        f"{rate * told['busy']:.1f}",
        f"{told['busy']:.1%}",
        f"{1e3 * told['cpu_s'] / told['jobs']:.2f}",
        f"{loaded['weights'] / 1e6:.0f}",
        f"{loaded['peak'] / loaded['weights'] / count:.2f}",
    ]


def _load(model: Path, count: int) -> dict[str, Any]:
    environ = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={count}", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "benchmarks.scaling", "--child", str(model)]
    ran = subprocess.run(command, env=environ, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def memory(folder: Path) -> dict[str, Any]:
    """In the child: bytes of the weights, and of host memory at the peak of loading them onto all devices."""
    import jax

    from promptmill.worker.sdxl.program import Model

    jax.block_until_ready(jax.device_put(0.0, jax.local_devices()[0]))
    Model.check(folder)
    before = _status_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew (proc(5))
    model = Model.load(folder)
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(model.weights))
    return {"weights": weights, "peak": _status_bytes("VmHWM") - before}


def _status_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    main()
