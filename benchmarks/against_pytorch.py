"""Ours against PyTorch on this machine's GPU: the same image, and its time. SDXL at full size, random weights.

    python -m benchmarks.against_pytorch --write docs/performance.md

Parity: one image of 1024 x 1024, 20 guided Euler steps, in float32 and bfloat16 on both sides. Time: bfloat16 at
batch 1 and 4, ours, PyTorch eager and torch.compile by turns, each in its own process on the same device; medians.
Each stage's result is kept in a JSON file, so a command that was cut short is simply given again; `--limit-s`
has it end in time, `--only ours|pytorch|parity` does a part. `--again` forgets what was kept. `--tiny` tries everything
with the tiny model, also without a GPU. 7 GB of weights are written to `--folder` unless they are there.
"""

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.full_size import relative_error
from benchmarks.peers import SIDES, Peer
from benchmarks.random_sdxl import write_random_sdxl
from benchmarks.report import circumstances, table, write_section

PACKAGES = ("jax", "flax", "torch", "diffusers")
SECTION = "against PyTorch"
ONLY = {"ours": ["ours"], "pytorch": [side for side in SIDES if side != "ours"], "parity": []}
# At 1024 x 1024, 2 FLOP a multiply-add, by PyTorch's counter: one UNet pass, the decoder, the text encoders.
UNET_TFLOP, DECODER_TFLOP, TEXT_TFLOP = 6.76, 10.5, 0.11
# What is compared, and with what.
PAIRS = [
    (("ours", "float32"), ("eager", "float32")),
    (("ours", "bfloat16"), ("eager", "float32")),
    (("eager", "bfloat16"), ("eager", "float32")),
    (("ours", "bfloat16"), ("ours", "float32")),
]


def main() -> None:
    options = _options()
    started = time.monotonic()
    results = _kept(options.results) if not options.again else {}
    write_random_sdxl(options.folder, tiny=options.tiny)
    try:
        if options.only in (None, "parity"):
            _measure_parity(results, options, started)
        for batch in options.batches:
            if options.only != "parity":
                _measure_time(results, batch, options, started)
    finally:
        text = _text(results, options)
        print(text)
        if options.write:
            write_section(options.write, SECTION, text)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    scratch = Path(tempfile.gettempdir())
    parser.add_argument("--folder", type=Path, help="the model's; default: sdxl-random in the temporary folder")
    parser.add_argument("--results", type=Path, default=scratch / "against-pytorch.json")
    parser.add_argument("--only", choices=ONLY)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--size", type=int, help="pixels; default: 1024, with --tiny 64")
    parser.add_argument("--mode", default="default", help="torch.compile's: default, reduce-overhead, max-autotune")
    parser.add_argument("--tflops", type=float, default=800.0, help="what the chip can reach in bfloat16 (H100: 800)")
    parser.add_argument("--limit-s", type=float, default=540.0, help="begin nothing new after so many seconds")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--write", type=Path, help="a Markdown file, into whose section the tables go")
    options = parser.parse_args()
    options.folder = options.folder or scratch / ("sdxl-random-tiny" if options.tiny else "sdxl-random")
    options.size = options.size or (64 if options.tiny else 1024)
    options.sides = [side for side in options.sides if options.only is None or side in ONLY[options.only]]
    return options


def _settings(side: str, dtype: str, batch: int, options: argparse.Namespace) -> dict[str, Any]:
    asked = {"side": side, "dtype": dtype, "batch": batch, "folder": str(options.folder.absolute())}
    return {**asked, "size": options.size, "steps": options.steps, "mode": options.mode}


def _key(settings: dict[str, Any]) -> str:
    """By what a result is kept: all that it depends on."""
    mode = f" {settings['mode']}" if settings["side"].startswith("compiled") else ""
    shape = f"{settings['size']} pixels, {settings['steps']} steps, batch {settings['batch']}"
    return f"{settings['side']}{mode}, {settings['dtype']}, {shape}, {settings['folder']}"


def _kept(path: Path) -> dict[str, Any]:
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return kept


def _keep(results: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(results, indent=1))
    unfinished.replace(path)


def _in_time(what: str, options: argparse.Namespace, started: float) -> bool:
    left = options.limit_s - (time.monotonic() - started)
    print(f"{what}{'' if left > 0 else ': no time left, give the command again'}", file=sys.stderr)
    return left > 0


def _measure_parity(results: dict[str, Any], options: argparse.Namespace, started: float) -> None:
    for side, dtype in dict.fromkeys(one for pair in PAIRS for one in pair):
        settings = _settings(side, dtype, 1, options)
        key = f"image: {_key(settings)}"
        path = options.results.with_name(f"{options.results.stem}-{options.size}-{side}-{dtype}.npz")
        if (key in results and path.exists()) or not _in_time(key, options, started):
            continue
        peer = Peer({**settings, "save": str(path)})
        try:
            results[key] = {"path": str(path), **peer.answer()}
        finally:
            peer.stop()
        _keep(results, options.results)


def _measure_time(results: dict[str, Any], batch: int, options: argparse.Namespace, started: float) -> None:
    """All sides that have no result yet for this batch, by turns on the one device."""
    asked = {side: _settings(side, "bfloat16", batch, options) for side in options.sides}
    asked = {side: settings for side, settings in asked.items() if not _is_timed(results, settings)}
    if not asked or not _in_time(f"time: {', '.join(asked)}, batch {batch}", options, started):
        return
    with ExitStack() as stack:
        peers = {}
        for side, settings in asked.items():
            # One after the other: a second that loads would disturb the first one's numbers.
            peer = Peer(settings)
            stack.callback(peer.stop)
            try:
                results[_key(settings)] = {**peer.answer(), "batch_s": []}
                peers[side] = peer
            except RuntimeError as error:  # out of memory, or no compiler: the others are measured all the same
                print(f"{_key(settings)}: {error}", file=sys.stderr)
        for _ in range(options.repeats):
            for side, peer in peers.items():
                results[_key(asked[side])]["batch_s"].append(peer.ask()["s"])
            _keep(results, options.results)
            if time.monotonic() - started > options.limit_s:
                break
        for side, peer in peers.items():
            results[_key(asked[side])] |= peer.end()
    _keep(results, options.results)


def _is_timed(results: dict[str, Any], settings: dict[str, Any]) -> bool:
    """Whether there are times; a command that was cut short may have left what came before them."""
    return bool(results.get(_key(settings), {}).get("batch_s"))


def _text(results: dict[str, Any], options: argparse.Namespace) -> str:
    devices = sorted({result["device"] for result in results.values() if "device" in result})
    what = "the tiny model" if options.tiny else "SDXL base"
    size = f"{options.size} x {options.size}"
    return f"""
`python -m benchmarks.against_pytorch`: {what}, random weights in float16 files, {size} pixels, {options.steps} guided
Euler steps. {circumstances(PACKAGES, device=" and ".join(devices))}.

Images and latents of one seed. float32 is strict on both sides (no TF32). Our decoder stays in float32, as the
configuration asks with `force_upcast`; PyTorch's pipeline heeds that in float16 alone, and decodes in bfloat16.

{table(["side", "against", "latents, relative error", "PSNR of the images, dB"], _parity_rows(results, options))}

Seconds of a batch in bfloat16, from prompts to bytes on the host: median and range. `by turns` is the median of the
ratios to our time in the same round. The ceiling is {options.tflops:.0f} TFLOP/s.

{table(_TIME_HEADER, _time_rows(results, options))}
"""


def _parity_rows(results: dict[str, Any], options: argparse.Namespace) -> list[list[str]]:
    rows = []
    for pair in PAIRS:
        keys = [f"image: {_key(_settings(side, dtype, 1, options))}" for side, dtype in pair]
        names = [f"{SIDES[side]}, {dtype}" for side, dtype in pair]
        if all(key in results and Path(results[key]["path"]).exists() for key in keys):
            got, expected = (dict(np.load(results[key]["path"])) for key in keys)
            error = relative_error(got["latents"], expected["latents"])
            rows.append([*names, f"{error:.1e}", f"{psnr(got['pixels'], expected['pixels']):.1f}"])
        else:
            rows.append([*names, "not measured", "not measured"])
    return rows


def psnr(got: np.ndarray, expected: np.ndarray) -> float:
    """Of bytes, in decibels; infinite where all are the same."""
    square = float(np.mean(np.square(got.astype(np.float64) - expected)))
    return 10 * math.log10(255**2 / square) if square else math.inf


_TIME_HEADER = [
    "side",
    "batch",
    "s a batch",
    "by turns",
    "images/s",
    "share of the ceiling",
    "peak memory, GB",
    "load, s",
    "compile, s",
    "first batch, s",
]


def _time_rows(results: dict[str, Any], options: argparse.Namespace) -> list[list[str]]:
    rows = []
    for batch in options.batches:
        ours = results.get(_key(_settings("ours", "bfloat16", batch, options)), {})
        for side, name in SIDES.items():
            result = results.get(_key(_settings(side, "bfloat16", batch, options)), {})
            if result.get("batch_s"):
                rows.append([name, str(batch), *_cells(result, ours, batch, options)])
            else:
                rows.append([name, str(batch), *["not measured"] * (len(_TIME_HEADER) - 2)])
    return rows


def _cells(result: dict[str, Any], ours: dict[str, Any], batch: int, options: argparse.Namespace) -> list[str]:
    seconds, rate = result["batch_s"], batch / statistics.median(result["batch_s"])
    ratios = [theirs / our for theirs, our in zip(seconds, ours.get("batch_s", []), strict=False)]
    spread = f"{statistics.median(seconds):.3f} ({min(seconds):.3f}-{max(seconds):.3f})"
    by_turns = f"{statistics.median(ratios):.2f}" if ratios else "-"
    peak = f"{result['peak'] / 1e9:.1f}" if result.get("peak") else "-"
    once = [f"{result[name]:.1f}" for name in ("load_s", "compile_s", "first_s")]
    return [spread, by_turns, f"{rate:.2f}", _share(rate, options), peak, *once]


def _share(rate: float, options: argparse.Namespace) -> str:
    """Of the ceiling, where the work is known: at 1024 x 1024 with guidance, two UNet passes a step."""
    if options.tiny or options.size != 1024:
        return "-"
    tflop = 2 * (options.steps * UNET_TFLOP + TEXT_TFLOP) + DECODER_TFLOP
    return f"{100 * rate * tflop / options.tflops:.0f}%"


if __name__ == "__main__":
    main()
