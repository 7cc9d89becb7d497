"""The VAE's decoder by itself: its error in bfloat16, its memory, and several images at a time.

    python -m benchmarks.decoder [--only error memory batches] [--sizes 256 512] [--write docs/performance.md]

`error`: images decoded in bfloat16 against float32, in grey levels, with more and more weights left in float32. Latents
of `pocket`, a trained model, are sampled; for SDXL's own sizes weights are random (benchmarks/random_sdxl.py's), with
the last layer scaled to a real image's contrast, and latents are noise: a stand-in. `memory`: what XLA allocates beside
arguments and results, by compiling alone. `batches`: lax.map with `batch_size`, in seconds and memory.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from benchmarks.random_sdxl import random_values
from benchmarks.report import circumstances, table, write_section
from promptmill.worker.checkpoint.weights import Parameter, load_weights, parameters
from promptmill.worker.checkpoints import find_model
from promptmill.worker.nn.config import VAEConfig
from promptmill.worker.nn.layers import with_prepared_kernels
from promptmill.worker.nn.vae import IN_FLOAT32, VAE
from promptmill.worker.sdxl.generate import decode
from promptmill.worker.sdxl.program import Model
from tests.decoding import Distance, decoded, sampled_latents

SDXL = VAEConfig(
    block_out_channels=(128, 256, 512, 512),
    layers_per_block=2,
    scaling_factor=0.13025,
    up_block_types=("UpDecoderBlock2D",) * 4,
)
PIXELS_PER_LATENT = 8
# Deviation of a photograph's pixels in [-1, 1], about.
CONTRAST = 0.5
LAST = ("decoder.conv_norm_out.", "decoder.conv_out.")
KEPT = {
    "all weights in bfloat16": (),
    "... but the last two layers": LAST,
    "... but the first two layers": tuple(key for key in IN_FLOAT32 if key not in LAST),
    "... but both: ours": IN_FLOAT32,
}
"""By what each is called, which weights stay in float32."""
GIB = 2**30

Weights = Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--sizes", nargs="+", type=int, help="pixels of square images of SDXL's decoder")
    parser.add_argument("--narrow", type=int, default=1, help="divide SDXL's channels by this, to try the script")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", type=Path, help="the Markdown file whose sections are replaced")
    options = parser.parse_args()
    for name in options.only:
        text = f"`python -m benchmarks.decoder --only {name}`: {circumstances(('jax',))}.\n\n{SECTIONS[name](options)}"
        print(f"{text}\n", flush=True)
        if options.write:
            write_section(options.write, f"decoder, {name}", text)


def error(options: argparse.Namespace) -> str:
    """A row for each set of weights that stays in float32."""
    model = Model.load(find_model("pocket"), devices=jax.local_devices()[:1], dtype=jnp.float32)
    graph, weights = load_weights(
        find_model("pocket") / "vae", partial(VAE, model.config.vae), dtype=jnp.float32, sharding=model.devices.whole
    )
    rows = list(_errors("pocket", graph, weights, sampled_latents(model)))
    graph, skeleton = nnx.split(nnx.eval_shape(partial(VAE, _sdxl(options))))
    for size in options.sizes or [256]:
        latents = _noise(size)
        weights = _with_contrast(graph, random_weights(skeleton), latents)
        rows += _errors(f"SDXL's size, random, {size} pixels", graph, weights, latents)
    return table(["decoder", "in bfloat16", "mean", "99.9% within", "farthest", "PSNR, dB"], rows)


def _errors(what: str, graph: nnx.GraphDef, weights: Weights, latents: np.ndarray) -> Iterator[list[str]]:
    exact = decoded(graph, weights, latents)
    for says, kept in KEPT.items():
        images = decoded(graph, in_bfloat16(weights, kept), latents)
        yield [what, says, *Distance.between(images, exact).cells()]


def memory(options: argparse.Namespace) -> str:
    """A row for each size; as a CPU computes it, and with an accelerator's choice of algorithms."""
    rows = [
        [str(size), backend, dtype, f"{_temporary(options, size, backend, dtype):.2f}"]
        for size in options.sizes or [1024, 2048]
        for backend in ("cpu", "tpu")
        for dtype in ("float32", "bfloat16")
    ]
    return table(["pixels", "algorithms of", "dtype", "GiB beside weights and image"], rows)


def _temporary(options: argparse.Namespace, size: int, backend: str, dtype: str) -> float:
    graph, skeleton = nnx.split(nnx.eval_shape(partial(VAE, _sdxl(options))))
    weights = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), skeleton)
    latents = jax.ShapeDtypeStruct((1, *_latent_shape(size)), jnp.float32)
    with mock.patch("jax.default_backend", lambda: backend):
        weights = weights if dtype == "float32" else in_bfloat16(weights, IN_FLOAT32)
        graph, weights = with_prepared_kernels(graph, weights, jax.device_put)
        lowered = jax.jit(partial(_decode_all, graph, None)).lower(weights, latents)
    return temporary_bytes(lowered.compile()) / GIB


def batches(options: argparse.Namespace) -> str:
    """A row for each number of images that are decoded at a time."""
    graph, skeleton = nnx.split(nnx.eval_shape(partial(VAE, _sdxl(options))))
    graph, weights = with_prepared_kernels(graph, random_weights(skeleton), jax.device_put)
    rows = []
    for size in options.sizes or [64, 128]:
        latents = jnp.concatenate([_noise(size, seed) for seed in range(4)])
        programs = {
            at_once: jax.jit(partial(_decode_all, graph, at_once)).lower(weights, latents).compile()
            for at_once in (None, 2, 4)
        }
        seconds = by_turns({n: partial(program, weights, latents) for n, program in programs.items()}, options.repeats)
        for at_once, program in programs.items():
            ratio = statistics.median(a / b for a, b in zip(seconds[at_once], seconds[None], strict=True))
            figures = statistics.median(seconds[at_once]), ratio, temporary_bytes(program) / GIB
            rows.append([str(size), str(at_once or 1), *(f"{figure:.2f}" for figure in figures)])
    return table(["pixels", "images at a time", "s for four", "of the time one by one", "GiB"], rows)


def _decode_all(graph: nnx.GraphDef, at_once: int | None, weights: Weights, latents: jax.Array) -> jax.Array:
    vae = nnx.merge(graph, weights)
    return lax.map(lambda each: decode(vae, jnp.float32, each).pixels, latents, batch_size=at_once)


def by_turns(calls: dict[Any, Callable[[], Any]], repeats: int) -> dict[Any, list[float]]:
    """Seconds of each call, `repeats` times one after the other, after a first that does not count."""
    seconds: dict[Any, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            started = time.perf_counter()
            jax.block_until_ready(call())
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def temporary_bytes(compiled: Any) -> int:
    """What XLA allocates beside arguments and results."""
    analysis = compiled.memory_analysis()
    assert analysis is not None, "XLA for the CPU knows"
    return int(analysis.temp_size_in_bytes)


def in_bfloat16(weights: Weights, kept: tuple[str, ...]) -> Weights:
    """All but those whose keys begin as `kept` says."""
    flat = nnx.to_flat_state(weights)
    half = {
        path: leaf if ".".join(map(str, path)).startswith(kept) else leaf.replace(leaf[...].astype(jnp.bfloat16))
        for path, leaf in flat
    }
    return nnx.from_flat_state(half)


def random_weights(skeleton: Weights) -> Weights:
    """As benchmarks/random_sdxl.py writes them into files."""
    flat = dict(nnx.to_flat_state(skeleton))
    by_path: dict[Any, list[Parameter]] = {}
    for parameter in parameters(skeleton):
        by_path.setdefault(parameter.path, []).append(parameter)
    for path, merged in by_path.items():
        flat[path] = flat[path].replace(jnp.concatenate([_drawn(parameter) for parameter in merged], axis=-1))
    return nnx.from_flat_state(flat)


def _drawn(parameter: Parameter) -> jax.Array:
    values = random_values("vae", parameter, 0).astype(np.float32)
    if parameter.path[-1] != "kernel":
        return jnp.asarray(values)
    return jnp.asarray(values.transpose((1, 0) if values.ndim == 2 else (2, 3, 1, 0)))


def _with_contrast(graph: nnx.GraphDef, weights: Weights, latents: np.ndarray) -> Weights:
    vae = nnx.merge(graph, weights)
    image = jax.jit(lambda weights, x: nnx.merge(graph, weights)(x))(weights, latents)
    last = vae.decoder.conv_out
    last.kernel[...] = last.kernel[...] * (CONTRAST / jnp.std(image))
    last.bias[...] = jnp.zeros_like(last.bias[...])
    return nnx.state(vae)


def _sdxl(options: argparse.Namespace) -> VAEConfig:
    channels = tuple(width // options.narrow for width in SDXL.block_out_channels)
    groups = SDXL.norm_num_groups // options.narrow
    return VAEConfig(**{**vars(SDXL), "block_out_channels": channels, "norm_num_groups": groups})


def _noise(size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((1, *_latent_shape(size)), np.float32)


def _latent_shape(size: int) -> tuple[int, int, int]:
    return size // PIXELS_PER_LATENT, size // PIXELS_PER_LATENT, SDXL.latent_channels


SECTIONS: dict[str, Callable[[argparse.Namespace], str]] = {"error": error, "memory": memory, "batches": batches}

if __name__ == "__main__":
    main()
