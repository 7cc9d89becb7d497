"""Ours, PyTorch diffusers in five ways and the last Flax pipeline in one run: the same weights, prompts and steps.

    python -m benchmarks.side_by_side --make-flax ENV --in-turn
    python -m benchmarks.side_by_side --what image --model mid --sizes 256 --flax-python ENV/bin/python
    python -m benchmarks.side_by_side --what image --sizes 1024 --dtype bfloat16      on a GPU, as it is
    python -m benchmarks.side_by_side --model mid --sides ours eager --xla-flags=--xla_cpu_prefer_vector_width=512

`--what` is one call of the UNet (a guided step: two passes per image) or of the VAE's decoder, or a whole guided
image. Every side is a process of its own. Where all fit into memory they take turns call by call; else, and with
`--in-turn`, each round starts them one after the other, and a side's time of a round is the median of its calls. A
ratio is the median over rounds of a side's time over PyTorch's eager time of the same round, so that what else the
machine does falls out. `--make-flax ENV` makes the environment of the Flax pipeline.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.full_size import make_inputs, relative_error
from benchmarks.peers import GUIDANCE, NEGATIVE, PROMPT, SIDES, Peer
from benchmarks.random_sdxl import SIZES, write_random_sdxl
from benchmarks.report import circumstances, table, write_section

PACKAGES = ("jax", "flax", "torch", "diffusers")
OURS, FLAX = "ours", "flax"
FLAX_PACKAGES = ("diffusers==0.39.0", "transformers==4.57.6", "flax<0.12", "jax<0.8", "safetensors", "pillow")
BASE = "eager"
HEAD = ["what", "pixels", "side", "s", "s / eager", "eager / it", "error to eager", "first call, s"]


def main() -> None:
    options = _options()
    if options.make_flax:
        subprocess.run([sys.executable, "-m", "venv", options.make_flax], check=True)
        subprocess.run([options.make_flax / "bin" / "pip", "install", *FLAX_PACKAGES], check=True)
        options.flax_python = options.make_flax / "bin" / "python"
    write_random_sdxl(options.folder, size=options.model)
    rows = []
    for what in options.what:
        for size in options.sizes:
            rows += _compare(what, size, options)
            print(f"{what}, {size} pixels: done", file=sys.stderr)
    text = _text(rows, options)
    print(text)
    if options.write:
        write_section(options.write, options.section, text)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", nargs="+", choices=("unet", "vae", "image"), default=["unet", "vae"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[256, 512], help="pixels of the square image")
    parser.add_argument("--sides", nargs="+", choices=[*SIDES, FLAX], default=[*SIDES, FLAX])
    parser.add_argument("--xla-flags", action="append", default=[], help="ours once more under these XLA_FLAGS")
    parser.add_argument("--model", choices=SIZES, default="full", help="random weights, written to --folder")
    parser.add_argument("--folder", type=Path, help="default: in the temporary folder")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--batch", type=int, default=1, help="images of a call")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=2, help="per round, where sides are started in turn")
    parser.add_argument("--in-turn", action="store_true", help="hold one side in memory at a time")
    parser.add_argument("--mode", default="default", help="torch.compile's")
    parser.add_argument("--flax-python", type=Path, help="of an environment with diffusers 0.39.0; without: no Flax")
    parser.add_argument("--make-flax", type=Path, metavar="ENV", help="make that environment")
    parser.add_argument("--write", type=Path, help="a Markdown file, into whose section the table goes")
    parser.add_argument("--section", default="side by side")
    options = parser.parse_args()
    name = "sdxl-random" if options.model == "full" else f"sdxl-random-{options.model}"
    options.folder = options.folder or Path(tempfile.gettempdir()) / name
    options.sides += [f"{OURS} {flags}" for flags in options.xla_flags]
    if not (options.flax_python or options.make_flax):
        options.sides = [side for side in options.sides if side != FLAX]
    return options


def _compare(what: str, size: int, options: argparse.Namespace) -> list[list[str]]:
    with tempfile.TemporaryDirectory() as scratch:
        asked = {side: _settings(side, what, size, Path(scratch), options) for side in options.sides}
        if what != "image":
            rows = options.batch * (2 if what == "unet" else 1)
            inputs = make_inputs(options.folder, what, size, rows)
            np.savez(Path(scratch) / "inputs.npz", allow_pickle=False, **inputs)
        seconds, first = (_in_turn if options.in_turn else _together)(asked, options)
        return [_row(what, size, side, seconds, first, Path(scratch)) for side in seconds]


def _settings(side: str, what: str, size: int, scratch: Path, options: argparse.Namespace) -> dict[str, Any]:
    name, _, flags = side.partition(" ")
    asked = {"side": name, "what": what, "size": size, "folder": str(options.folder.absolute())}
    texts = {"prompt": PROMPT, "negative": NEGATIVE, "guidance": GUIDANCE}
    more = {"dtype": options.dtype, "batch": options.batch, "steps": options.steps, "mode": options.mode}
    files = {"inputs": str(scratch / "inputs.npz"), "output": str(scratch / f"{side}.npy")}
    return {**asked, **texts, **more, **files, **({"xla_flags": flags} if flags else {})}


def _start(side: str, settings: dict[str, Any], options: argparse.Namespace) -> Peer | None:
    """The side after its first calls; None where it cannot run here, which it has said."""
    script = Path(__file__).with_name("peer_flax.py")
    peer = Peer(settings, [str(options.flax_python), str(script)] if side == FLAX else None)
    try:
        peer.first = peer.answer()
    except RuntimeError as error:
        print(f"{side}: {error}", file=sys.stderr)
        peer.stop()
        return None
    return peer


Times = dict[str, list[float]]


def _together(asked: dict[str, Any], options: argparse.Namespace) -> tuple[Times, dict[str, Any]]:
    with ExitStack() as stack:
        peers = {}
        for side, settings in asked.items():
            peer = _start(side, settings, options)
            if peer:
                stack.callback(peer.stop)
                peers[side] = peer
        seconds: Times = {side: [] for side in peers}
        for _ in range(options.rounds):
            for side, peer in peers.items():
                seconds[side].append(peer.ask()["s"])
        return seconds, {side: peer.first for side, peer in peers.items()}


def _in_turn(asked: dict[str, Any], options: argparse.Namespace) -> tuple[Times, dict[str, Any]]:
    seconds: Times = {}
    first: dict[str, Any] = {}
    for _ in range(options.rounds):
        for side, settings in asked.items():
            peer = _start(side, settings, options)
            if peer:
                calls = [peer.ask()["s"] for _ in range(options.calls)]
                peer.stop()
                seconds.setdefault(side, []).append(statistics.median(calls))
                first.setdefault(side, peer.first)
            print(f"{side}: {seconds.get(side)}", file=sys.stderr, flush=True)
    return seconds, first


def _row(what: str, size: int, side: str, seconds: Times, first: dict[str, Any], scratch: Path) -> list[str]:
    own = seconds[side]
    ratios = [ours / base for ours, base in zip(own, seconds.get(BASE, []), strict=False)]
    ratio = statistics.median(ratios) if ratios else 0.0
    shown = [f"{ratio:.2f}", f"{1 / ratio:.2f}"] if ratio else ["-", "-"]
    files = [scratch / f"{name}.npy" for name in (side, BASE)]
    error = relative_error(*map(np.load, files)) if all(file.exists() for file in files) else None
    called = f"{first[side]['compile_s'] + first[side]['first_s']:.1f}"
    name = "Flax, diffusers 0.39.0" if side == FLAX else SIDES.get(side, side)
    spread = f"{statistics.median(own):.2f} ({min(own):.2f}-{max(own):.2f})"
    return [what, str(size), name, spread, *shown, "-" if error is None or side == BASE else f"{error:.1e}", called]


def _text(rows: list[list[str]], options: argparse.Namespace) -> str:
    how = f"each started anew in {options.rounds} rounds" if options.in_turn else f"{options.rounds} calls by turns"
    flax = "" if FLAX not in options.sides else " Flax: diffusers 0.39.0, transformers 4.57.6, in its own environment."
    steps = f" Images: {options.steps} guided Euler steps, batch {options.batch}." if "image" in options.what else ""
    return f"""
`python -m benchmarks.side_by_side`: {options.model} size, random weights, {options.dtype}; {how}, seconds are medians
(and ranges), ratios medians of the rounds' ratios.{steps}{flax} {circumstances(PACKAGES)}.

{table(HEAD, rows)}
"""


if __name__ == "__main__":
    main()
