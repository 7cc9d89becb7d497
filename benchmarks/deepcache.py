"""What DeepCache (`cache_interval`) costs in quality, and what it saves: PSNR to the images of the whole UNet.

    python -m benchmarks.deepcache [--model pocket] [--steps 10 20 50] [--intervals 2 3 5] [--write docs/performance.md]
    python -m benchmarks.deepcache --random full --folder /tmp/sdxl-random --dtype bfloat16 --size 256 --images 1

The same prompts and seeds by turns in one process: by the program that runs the whole UNet at each evaluation, and by
the one that keeps its deep part. PSNR is over all images' bytes; beside it that of the whole UNet in as many steps as
the other has whole evaluations. `pocket` and random weights stand in for a model that
people use: what the numbers are there has to be measured there.
"""

import argparse
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.against_pytorch import psnr
from benchmarks.interval import render, requests_of
from benchmarks.random_sdxl import SIZES, write_random_sdxl
from benchmarks.report import circumstances, table, write_section
from promptmill.producer.models import resolve_model
from promptmill.worker.checkpoints import find_model
from promptmill.worker.sdxl.program import Model
from promptmill.worker.sdxl.requests import PlainRequest

HEAD = [
    "steps",
    "cache_interval",
    "whole evaluations",
    "PSNR, dB",
    "worst image, dB",
    "as many steps alone, dB",
    "s a batch",
    "of the whole UNet",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pocket", help="a model's name, or a folder")
    parser.add_argument("--random", choices=list(SIZES), help="random weights of this size, instead of --model")
    parser.add_argument("--folder", type=Path, help="where those are, or are written; default: a temporary one")
    parser.add_argument("--dtype", help="default: float32 on a CPU, else bfloat16")
    parser.add_argument("--size", type=int, help="pixels; default: the model's own")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 20, 50])
    parser.add_argument("--intervals", type=int, nargs="+", default=[2, 3, 5])
    parser.add_argument("--guidance", type=float, help="default: the model's own, or 5")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        text = _measured(options, Path(scratch))
    print(text)
    if options.write:
        write_section(options.write, f"deepcache {options.random or options.model}", text)


def _measured(options: argparse.Namespace, scratch: Path) -> str:
    import jax

    name = options.model if options.random else resolve_model(options.model)
    folder = find_model(name)
    if options.random:
        folder = write_random_sdxl(options.folder or scratch / "model", size=options.random)
    model = Model.load(folder, devices=jax.local_devices()[:1], dtype=options.dtype)
    (first, *_) = requests = requests_of(name, model.default_size, options)
    shape: dict[str, Any] = {"width": first.width, "height": first.height, "per_device_batch": len(requests)}
    whole, cached = (model.compile(**shape, guided=first.guidance_scale > 1, cached=each) for each in (False, True))
    rows = [row for steps in options.steps for row in _rows(whole, cached, requests, steps, options)]
    what = f"SDXL's layout at {options.random} size, random weights" if options.random else options.model
    return f"""
`python -m benchmarks.deepcache`: {what}, {options.dtype or "default dtype"}, {len(requests)} images of {first.width} x
{first.height}, Euler, guidance {first.guidance_scale:g}; {options.rounds} rounds. {circumstances(("jax", "flax"))}.

{table(HEAD, rows)}
"""


def _rows(
    whole: Any, cached: Any, requests: list[PlainRequest], steps: int, options: argparse.Namespace
) -> list[list[str]]:
    """One step count's rows: the whole UNet, then each interval, timed by turns."""
    intervals = [1, *options.intervals]
    asked = [replace(request, num_inference_steps=steps) for request in requests]
    runs = [
        (whole if every == 1 else cached, [replace(request, cache_interval=every) for request in asked])
        for every in intervals
    ]
    rounds = [[render(*run) for run in runs] for _ in range(options.rounds)]
    expected = rounds[0][0][0]
    rows = []
    for index, every in enumerate(intervals):
        pixels: np.ndarray = rounds[0][index][0]
        worst = min(psnr(got, wanted) for got, wanted in zip(pixels, expected, strict=True))
        fewer, _ = render(whole, [replace(request, num_inference_steps=-(-steps // every)) for request in requests])
        seconds = [turn[index][1] for turn in rounds]
        ratio = statistics.median(turn[index][1] / turn[0][1] for turn in rounds)
        quality = [f"{psnr(pixels, expected):.1f}", f"{worst:.1f}", f"{psnr(fewer, expected):.1f}"]
        times = [f"{statistics.median(seconds):.2f}", f"{ratio:.2f}"]
        rows.append([str(steps), str(every), str(-(-steps // every)), *quality, *times])
    return rows


if __name__ == "__main__":
    main()
