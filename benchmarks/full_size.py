"""SDXL at its real size, part by part: loading, its memory, and one call of each network against PyTorch.

    python -m benchmarks.full_size [--folder /tmp/sdxl-random] [--parts unet vae] [--write docs/performance.md]

The weights are random (benchmarks/random_sdxl.py writes them, 7 GB, unless they are there); both sides read the same
float16 files and compute in float32. Each measurement has a process of its own, one after the other, so that a
machine of 16 GB does; the largest is the UNet in float32, 10.3 GB. Peak memory is what the kernel calls VmHWM, from
just before loading, over the bytes of the weights; so this runs on Linux. `--tiny` tries it all on the tiny model.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.random_sdxl import write_random_sdxl
from benchmarks.report import circumstances, table, write_section

PARTS = ("text_encoder", "text_encoder_2", "unet", "vae")
LOAD_HEAD = ["part", "as", "weights, GB", "s", "peak / weights"]
PACKAGES = ("jax", "flax", "torch", "diffusers", "transformers")
SECTION = "full size"
WHOLE_SECTION = "whole load"


def main() -> None:
    options = _options()
    if options.child:
        side, part, dtype, folder = options.child
        return _child(side, part, dtype, folder, options)
    write_random_sdxl(options.folder, tiny=options.tiny)
    if options.whole:
        return _whole(options)
    loads, calls = [], []
    with tempfile.TemporaryDirectory() as scratch:
        inputs = Path(scratch)
        for part in options.parts:
            np.savez(inputs / f"{part}.npz", allow_pickle=False, **make_inputs(options.folder, part, options.size))
            theirs = _measure("pytorch", part, "float32", inputs, options)
            ours = {dtype: _measure("ours", part, dtype, inputs, options) for dtype in options.dtypes}
            loads += [_load_row(part, dtype, report) for dtype, report in ours.items()]
            loads.append(_load_row(part, "PyTorch, float32", theirs))
            calls += [_call_row(part, dtype, report, theirs, inputs) for dtype, report in ours.items()]
            print(f"{part}: done", file=sys.stderr)
    text = _text(loads, calls, options)
    print(text)
    if options.write:
        write_section(options.write, SECTION, text)
    return None


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "sdxl-random")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--dtypes", nargs="+", default=["float32"], help="what ours computes in; PyTorch: float32")
    parser.add_argument("--size", type=int, default=512, help="pixels of the square image")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--whole", action="store_true", help="only load all four in one process")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--write", type=Path, help="a Markdown file, into whose section the tables go")
    parser.add_argument("--child", nargs=4, metavar=("SIDE", "PART", "DTYPE", "INPUTS"), help=argparse.SUPPRESS)
    return parser.parse_args()


def _whole(options: argparse.Namespace) -> None:
    """`Model.load` as a worker calls it: all four networks, one after the other, in this one process."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax
    import jax.numpy as jnp

    from promptmill.worker.sdxl.program import Model

    rows = []
    jax.block_until_ready(jnp.zeros(8))
    for dtype in options.dtypes:
        watch = Peak()
        model = Model.load(options.folder, dtype=jnp.dtype(dtype))
        report = watch.report(sum(leaf.nbytes for leaf in jax.tree.leaves(model.weights)))
        rows.append(_load_row("all four", dtype, report))
        del model
    text = f"""
`python -m benchmarks.full_size --whole`: {_model(options)}. {circumstances(PACKAGES)}.

{table(LOAD_HEAD, rows)}
"""
    print(text)
    if options.write:
        write_section(options.write, WHOLE_SECTION, text)


def make_inputs(folder: Path, part: str, size: int, batch: int = 1) -> dict[str, np.ndarray]:
    """What one call of a network takes, channels last, from a generator of its own."""
    draw = np.random.default_rng(PARTS.index(part))
    if part.startswith("text_encoder"):
        return {"ids": draw.integers(3, 900, (2, 77))}
    # The autoencoder halves once less than it has levels.
    levels = len(_config(folder, "vae")["block_out_channels"]) - 1
    latents = draw.standard_normal((batch, size >> levels, size >> levels, 4), np.float32)
    if part == "vae":
        return {"latents": latents * np.float32(0.13)}
    unet = _config(folder, "unet")
    added = 6 * unet["addition_time_embed_dim"]
    return {
        "latents": latents,
        "timestep": np.full(batch, 801.0, np.float32),
        "context": draw.standard_normal((batch, 77, unet["cross_attention_dim"]), np.float32),
        "pooled": draw.standard_normal((batch, unet["projection_class_embeddings_input_dim"] - added), np.float32),
        "time_ids": np.array([[size, size, 0, 0, size, size]] * batch, np.float32),
    }


def _config(folder: Path, part: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / part / "config.json").read_text())
    return values


def _measure(side: str, part: str, dtype: str, inputs: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run one measurement in its own process; its output lies beside the inputs afterwards."""
    command = [sys.executable, "-m", "benchmarks.full_size", "--child", side, part, dtype, str(inputs)]
    command += ["--folder", str(options.folder), "--repeats", str(options.repeats)]
    environ = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environ, check=True, stdout=subprocess.PIPE, text=True)
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def _child(side: str, part: str, dtype: str, inputs: str, options: argparse.Namespace) -> None:
    values = dict(np.load(Path(inputs) / f"{part}.npz"))
    report, output = (_ours if side == "ours" else _theirs)(options.folder, part, dtype, values, options.repeats)
    np.save(Path(inputs) / f"{part}-{side}-{dtype}.npy", output)
    print(json.dumps(report))


def _ours(folder: Path, part: str, dtype: str, values: dict[str, np.ndarray], repeats: int) -> Any:
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from promptmill.worker.checkpoint.weights import load_weights
    from promptmill.worker.nn.layers import with_prepared_kernels
    from promptmill.worker.nn.vae import IN_FLOAT32

    device = jax.devices("cpu")[0]
    build, call = _our_network(folder, part)
    jax.block_until_ready(jax.device_put(jnp.zeros(8), device))
    watch = Peak()
    graph, state = load_weights(
        folder / part,
        build,
        dtype=jnp.dtype(dtype),
        sharding=jax.sharding.SingleDeviceSharding(device),
        in_float32=IN_FLOAT32 if part == "vae" else (),
    )
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    graph, state = with_prepared_kernels(graph, state, partial(jax.device_put, device=device))
    report = watch.report(weights)
    inputs = {name: jnp.asarray(value, _float_type(value, dtype)) for name, value in values.items()}
    started = time.perf_counter()
    compiled = jax.jit(lambda state, inputs: call(nnx.merge(graph, state), inputs)).lower(state, inputs).compile()
    report["compile_s"] = time.perf_counter() - started
    output, report["call_s"] = _timed(lambda: jax.block_until_ready(compiled(state, inputs)), repeats)
    return report, np.asarray(output, np.float32)


def _float_type(value: np.ndarray, dtype: str) -> Any:
    return dtype if np.issubdtype(value.dtype, np.floating) else np.int32


def _our_network(folder: Path, part: str) -> tuple[Any, Any]:
    from promptmill.worker.nn.config import VAEConfig
    from promptmill.worker.nn.vae import VAE
    from promptmill.worker.sdxl.config import UNetConfig
    from promptmill.worker.sdxl.unet import UNet
    from promptmill.worker.text.clip import CLIPText
    from promptmill.worker.text.config import CLIPConfig

    config = folder / part / "config.json"
    match part:
        case "unet":
            names = ("latents", "timestep", "context", "pooled", "time_ids")
            build = partial(UNet, UNetConfig.from_file(config))
            return build, lambda network, given: network(*(given[name] for name in names))
        case "vae":
            return partial(VAE, VAEConfig.from_file(config)), lambda network, given: network(given["latents"])
        case _:
            build_text = partial(CLIPText, CLIPConfig.from_file(config), projection=part == "text_encoder_2")
            return build_text, lambda network, given: network(given["ids"])[0]


def _theirs(folder: Path, part: str, dtype: str, values: dict[str, np.ndarray], repeats: int) -> Any:
    import torch

    load = _their_network(part, getattr(torch, dtype))
    watch = Peak()
    network = load(folder / part, local_files_only=True).eval()
    # What is mapped from the file is read when it is first used, so it counts once it was.
    used = sum(tensor.numel() * tensor.element_size() for tensor in network.parameters())
    report = watch.report(used)
    report["compile_s"] = None
    inputs = {name: torch.from_numpy(value) for name, value in values.items()}
    with torch.no_grad():
        output, report["call_s"] = _timed(lambda: _their_call(network, part, inputs), repeats)
    return report, output.numpy()


def _their_network(part: str, dtype: Any) -> Any:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    kinds: dict[str, Any] = {
        "text_encoder": partial(CLIPTextModel.from_pretrained, dtype=dtype),
        "text_encoder_2": partial(CLIPTextModelWithProjection.from_pretrained, dtype=dtype),
        "unet": partial(UNet2DConditionModel.from_pretrained, torch_dtype=dtype),
        "vae": partial(AutoencoderKL.from_pretrained, torch_dtype=dtype),
    }
    return kinds[part]


def _their_call(network: Any, part: str, inputs: dict[str, Any]) -> Any:
    if part.startswith("text_encoder"):
        return network(inputs["ids"], output_hidden_states=True).hidden_states[-2]
    latents = inputs["latents"].permute(0, 3, 1, 2)
    if part == "vae":
        decoded = network.decode(latents / network.config.scaling_factor).sample
    else:
        added = {"text_embeds": inputs["pooled"], "time_ids": inputs["time_ids"]}
        decoded = network(latents, inputs["timestep"], inputs["context"], added_cond_kwargs=added).sample
    return decoded.permute(0, 2, 3, 1)


def _timed(call: Any, repeats: int) -> tuple[Any, list[float]]:
    """The result, and seconds of each call after a first."""
    output, seconds = call(), []
    for _ in range(repeats):
        started = time.perf_counter()
        output = call()
        seconds.append(time.perf_counter() - started)
    return output, seconds


class Peak:
    """From its making on: the seconds, and the most memory that this process had beyond what it had then."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew (proc(5))
        self._before = _status_bytes("VmRSS")
        self._started = time.perf_counter()

    def report(self, weights: int) -> dict[str, Any]:
        seconds = time.perf_counter() - self._started
        return {"load_s": seconds, "weights": weights, "peak": _status_bytes("VmHWM") - self._before}


def _status_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def _load_row(part: str, what: str, report: dict[str, Any]) -> list[str]:
    peak = f"{report['peak'] / report['weights']:.2f}"
    return [part, what, f"{report['weights'] / 1e9:.2f}", f"{report['load_s']:.1f}", peak]


def _call_row(part: str, dtype: str, ours: dict[str, Any], theirs: dict[str, Any], inputs: Path) -> list[str]:
    got, expected = np.load(inputs / f"{part}-ours-{dtype}.npy"), np.load(inputs / f"{part}-pytorch-float32.npy")
    error = relative_error(got, expected)
    times = [f"{statistics.median(report['call_s']):.2f}" for report in (ours, theirs)]
    deviation = f"{expected.std():.3f}"
    return [part, " x ".join(map(str, expected.shape)), dtype, f"{error:.1e}", deviation, *times, _compile_s(ours)]


def _compile_s(report: dict[str, Any]) -> str:
    return f"{report['compile_s']:.1f}"


def relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    """The norm of the difference over the norm; not a number where anything is not one."""
    if got.shape != expected.shape:
        return math.inf
    difference = got.astype(np.float64) - expected
    return float(np.linalg.norm(difference) / np.linalg.norm(expected))


def _model(options: argparse.Namespace) -> str:
    return "the tiny model" if options.tiny else "SDXL base"


def _text(loads: list[list[str]], calls: list[list[str]], options: argparse.Namespace) -> str:
    return f"""
`python -m benchmarks.full_size`: {_model(options)}, random weights in float16 files. {circumstances(PACKAGES)}.

Loading, each part in its own process. Peak is host memory while loading, over the weights in the dtype asked for.

{table(LOAD_HEAD, loads)}

One call of each network for {options.size} x {options.size} pixels, on the CPU; the error is the norm of the difference
to PyTorch in float32 over the norm, times are medians of {options.repeats} calls after a first.

{
        table(
            ["part", "output", "ours in", "relative error", "deviation", "ours, s", "PyTorch, s", "compile, s"],
            calls,
        )
    }
"""


if __name__ == "__main__":
    main()
