"""What a quantised UNet costs in quality and time, and what it saves in memory: beside the whole one, in one run.

    python -m benchmarks.quantize [--model pocket] [--size 64] [--images 8] [--steps 20] [--write docs/performance.md]
    python -m benchmarks.quantize --model FOLDER --dtype bfloat16 --size 256 --images 1 --steps 4

The same prompts and seeds in every format, each format in a process of its own, so that peaks of memory are its own
(VmHWM, on Linux). PSNR is to the images of the unquantised UNet. `pocket` and random weights
(benchmarks/random_sdxl.py) stand in for a model that people use: what the numbers are there has to be measured there.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.full_size import Peak
from benchmarks.report import ROOT, circumstances, table, write_section
from promptmill.worker.quantization import FORMATS, UNQUANTIZED

PROMPTS = (
    "a red apple on a blue background",
    "a green tree on a hill",
    "three yellow stars at night",
    "a white cat on a black sofa",
)
HEAD = [
    "UNet in",
    "on the device, MB",
    "more while running, MB",
    "load, s",
    "peak of loading, MB",
    "compile, s",
    "s per batch",
    "PSNR, dB",
    "worst image, dB",
    "mean, grey levels",
    "farthest",
]
"""The device's memory is the UNet's weights; what is needed besides is XLA's figure for the program's temporaries."""


def main() -> None:
    options = _options()
    if options.child:
        _child(options)
        return
    with tempfile.TemporaryDirectory() as scratch:
        reports = {name: _measure(name, Path(scratch), options) for name in (UNQUANTIZED, *FORMATS)}
        whole = np.load(Path(scratch) / f"{UNQUANTIZED}.npy")
        rows = [_row(name, report, np.load(Path(scratch) / f"{name}.npy"), whole) for name, report in reports.items()]
    text = _text(rows, reports[UNQUANTIZED], options)
    print(text)
    if options.write:
        write_section(options.write, f"quantize, {options.label or options.model}", text)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pocket", help="a model's name, or a folder")
    parser.add_argument("--label", help="what the page calls the model; default: its name")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--size", type=int, default=64, help="pixels of the square images")
    parser.add_argument("--images", type=int, default=8, help="one batch, each of its own seed")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", type=Path, help="a Markdown file, into whose section the table goes")
    parser.add_argument("--child", nargs=2, metavar=("FORMAT", "PIXELS"), help=argparse.SUPPRESS)
    return parser.parse_args()


def _measure(name: str, scratch: Path, options: argparse.Namespace) -> dict[str, Any]:
    given = [sys.executable, "-m", "benchmarks.quantize", *sys.argv[1:], "--child", name, str(scratch / f"{name}.npy")]
    done = subprocess.run(given, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{name}: {report}", file=sys.stderr)
    return report


def _child(options: argparse.Namespace) -> None:
    """Measure one format; leave its images in a file and the numbers on stdout."""
    import jax
    import jax.numpy as jnp

    from promptmill.worker.checkpoints import find_model
    from promptmill.worker.program import fetch
    from promptmill.worker.sdxl.program import Model
    from promptmill.worker.sdxl.requests import PlainRequest

    name, pixels = options.child
    jax.block_until_ready(jnp.zeros(8))
    folder, watch = find_model(options.model), Peak()
    model = Model.load(folder, devices=jax.local_devices()[:1], dtype=jnp.dtype(options.dtype), quantize=name)
    loaded = watch.report(sum(leaf.nbytes for leaf in jax.tree.leaves(model.weights["unet"])))
    started = time.perf_counter()
    size = {"width": options.size, "height": options.size}
    program = model.compile(**size, guided=options.guidance > 1, per_device_batch=options.images)
    compile_s = time.perf_counter() - started
    wishes = [
        PlainRequest(
            PROMPTS[index % len(PROMPTS)],
            **size,
            seed=index,
            num_inference_steps=options.steps,
            guidance_scale=options.guidance,
        )
        for index in range(options.images)
    ]
    prepared = program.prepare(wishes)
    images, seconds = fetch(program.run(prepared), len(wishes)).pixels, []
    for _ in range(options.rounds):
        started = time.perf_counter()
        fetch(program.run(prepared), len(wishes))
        seconds.append(time.perf_counter() - started)
    np.save(pixels, images)
    temporary = int(program._compiled.memory_analysis().temp_size_in_bytes)
    print(json.dumps({**loaded, "compile_s": compile_s, "batch_s": seconds, "temporary": temporary}))


def _row(name: str, report: dict[str, Any], images: np.ndarray, whole: np.ndarray) -> list[str]:
    memory = [f"{report['weights'] / 1e6:,.1f}", f"{report['temporary'] / 1e6:,.1f}", f"{report['load_s']:.1f}"]
    times = [f"{report['compile_s']:.1f}", f"{statistics.median(report['batch_s']):.2f}"]
    row = [name, *memory, f"{report['peak'] / 1e6:,.0f}", *times]
    if name == UNQUANTIZED:
        return [*row, "", "", "", ""]
    apart = np.abs(images.astype(float) - whole)
    worst = min(_psnr(each) for each in apart)
    return [*row, f"{_psnr(apart):.1f}", f"{worst:.1f}", f"{apart.mean():.2f}", f"{apart.max():.0f}"]


def _psnr(apart: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(np.square(apart).mean(), 1e-9)))


def _text(rows: list[list[str]], whole: dict[str, Any], options: argparse.Namespace) -> str:
    what = f"{options.label or options.model} in {options.dtype}, {options.size} x {options.size}, one batch of"
    return f"""
`python -m benchmarks.quantize`: {what} {options.images}, {options.steps} steps, guidance {options.guidance:g};
times are medians of {options.rounds} rounds. {circumstances(("jax", "flax"), device="CPU")}.

{table(HEAD, rows)}
"""


if __name__ == "__main__":
    main()
