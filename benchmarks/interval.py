"""What guidance for part of the steps costs in quality, and what it saves: PSNR to the fully guided images.

    python -m benchmarks.interval [--model pocket] [--size 64] [--images 8] [--steps 20] [--write docs/performance.md]

The same prompts and seeds, rendered guided at every step, and with `guidance_start` and `guidance_end`. PSNR is over
all images' bytes; passes are those of the UNet, which is what the time goes to. `pocket` and random weights stand in
for a model that people use: what the numbers are there has to be measured there.
"""

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.against_pytorch import psnr
from benchmarks.report import ROOT, circumstances, table, write_section
from promptmill.producer.models import model_defaults, resolve_model
from promptmill.worker.checkpoints import find_model
from promptmill.worker.program import fetch
from promptmill.worker.sdxl.program import Model
from promptmill.worker.sdxl.requests import PlainRequest, guided_evaluations

INTERVALS: list[tuple[float | None, float | None]] = [(None, 0.8), (None, 0.6), (0.2, None), (0.2, 0.8), (0.4, None)]
HEAD = ["guidance_start", "guidance_end", "passes", "PSNR, dB", "worst image, dB", "s a batch", "of all guided"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pocket", help="a model's name, or a folder")
    parser.add_argument("--size", type=int, help="pixels; default: the model's own")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, help="default: the model's own, or 5")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    text = _measured(options)
    print(text)
    if options.write:
        write_section(options.write, "guidance interval", text)


def _measured(options: argparse.Namespace) -> str:
    import jax

    name = resolve_model(options.model)
    model = Model.load(find_model(name), devices=jax.local_devices()[:1])
    requests = [
        replace(each, num_inference_steps=options.steps) for each in requests_of(name, model.default_size, options)
    ]
    size = requests[0].width
    shape: dict[str, Any] = {"width": size, "height": size, "guided": True, "per_device_batch": len(requests)}
    full, part = model.compile(**shape), model.compile(**shape, interval=True)
    runs = [(full, requests)]
    for start, end in INTERVALS:
        runs.append((part, [replace(request, guidance_start=start, guidance_end=end) for request in requests]))
    pixels = [render(*run)[0] for run in runs]
    seconds = [[render(*run)[1] for run in runs] for _ in range(options.rounds)]
    rows = []
    for index, (start, end) in enumerate([(None, None), *INTERVALS]):
        each = [psnr(got, expected) for got, expected in zip(pixels[index], pixels[0], strict=True)]
        ratio = statistics.median(row[index] / row[0] for row in seconds)
        passes = options.steps + int(guided_evaluations(runs[index][1][0], options.steps).sum())
        quality = [f"{psnr(pixels[index], pixels[0]):.1f}", f"{min(each):.1f}"]
        median = statistics.median(row[index] for row in seconds)
        rows.append([str(start or 0), str(end or 1), str(passes), *quality, f"{median:.2f}", f"{ratio:.2f}"])
    return f"""
`python -m benchmarks.interval`: {options.model}, {len(requests)} images of {size} x {size}, {options.steps} Euler
steps, guidance {requests[0].guidance_scale:g}. {circumstances(("jax", "flax"))}.

{table(HEAD, rows)}
"""


def requests_of(name: str, size: int, options: argparse.Namespace) -> list[PlainRequest]:
    """A request per image, of the examples' prompts; `options` are `images`, `size`, `guidance`."""
    prompts = [line for line in (ROOT / "examples" / "prompts.txt").read_text().splitlines() if line.strip()]
    guidance = options.guidance or model_defaults(name).job_fields().get("guidance_scale") or 5.0
    settings: dict[str, Any] = {"guidance_scale": guidance}
    size = options.size or size
    texts = [prompts[index % len(prompts)] for index in range(options.images)]
    return [PlainRequest(text, size, size, seed=seed, **settings) for seed, text in enumerate(texts)]


def render(program: Any, requests: list[PlainRequest]) -> tuple[np.ndarray, float]:
    """The pixels of one batch, and its seconds."""
    prepared = program.prepare(requests)
    started = time.perf_counter()
    pixels = fetch(program.run(prepared), len(requests)).pixels
    return pixels, time.perf_counter() - started


if __name__ == "__main__":
    main()
