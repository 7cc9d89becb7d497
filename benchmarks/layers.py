"""Our layers beside flax.nnx's own: time, and error against NumPy in float64. At sizes of SDXL's UNet, on the CPU.

    python -m benchmarks.layers [--write]

One run, the two by turns; ratios of medians. Our convolutions' kernels are prepared beforehand, as a model's are when
it is loaded. `mean 30` is what a norm gets after a few residual blocks: numbers far
from zero. The last line is what a loader waits for. nnx's norms are measured as they
come (`use_fast_variance`), and without it.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.report import ROOT, circumstances, table, write_section
from promptmill.worker.nn import blocks, layers
from promptmill.worker.nn.convolution import upsample_2x

PAGE = ROOT / "docs" / "performance.md"
ROUNDS = 15
LAYERS_BUILT = 750  # about as many as SDXL's UNet has
Reference = Callable[[np.ndarray], np.ndarray]


class Pair(NamedTuple):
    """Two layers of one kind, and what they are called with."""

    name: str
    shape: tuple[int, ...]
    ours: Any
    theirs: Any
    mean: float = 0
    reference: Reference | None = None
    """In float64."""
    dtype: Any = jnp.float32


def pairs() -> Iterator[Pair]:
    yield from products(jnp.float32, "")
    yield from products(jnp.bfloat16, ", bfloat16")
    rngs = nnx.Rngs(0)
    for side, width in ((32, 512), (64, 512), (128, 256)):
        name, shape = f"Upsample {width}, {side} x {side}", (1, side, side, width)
        yield Pair(name, shape, blocks.Upsample(width), Upsampled(width, rngs))
    for mean in (0, 30):
        for note, fast in (("", {}), (", no fast variance", {"use_fast_variance": False})):
            theirs: Any = nnx.LayerNorm(1280, epsilon=1e-5, rngs=rngs, **fast)
            ours: Any = layers.LayerNorm(1280, eps=1e-5)
            yield Pair(f"LayerNorm, mean {mean}{note}", (1, 1024, 1280), ours, theirs, mean, layer_norm)
    for mean in (0, 30):
        for note, fast in (("", {}), (", no fast variance", {"use_fast_variance": False})):
            theirs = nnx.GroupNorm(320, 32, epsilon=1e-5, rngs=rngs, **fast)
            ours = layers.GroupNorm(320, groups=32, eps=1e-5)
            yield Pair(f"GroupNorm, mean {mean}{note}", (1, 64, 64, 320), ours, theirs, mean, group_norm)


def products(dtype: Any, note: str) -> Iterator[Pair]:
    """Linear layers and convolutions, at the sizes of the UNet at 256 and 512 pixels and of the decoder."""
    rngs = nnx.Rngs(0)
    theirs: Any = nnx.Linear(1280, 1280, param_dtype=dtype, rngs=rngs)
    yield Pair(f"Linear 1280{note}", (1, 1024, 1280), layers.Linear(1280, 1280), theirs, dtype=dtype)
    for batch, side, width in ((2, 64, 320), (2, 32, 640), (2, 16, 1280), (2, 8, 1280), (1, 128, 512), (1, 256, 128)):
        theirs = nnx.Conv(width, width, (3, 3), padding=((1, 1), (1, 1)), param_dtype=dtype, rngs=rngs)
        name = f"Conv 3x3 {width}, {batch} x {side} x {side}{note}"
        yield Pair(name, (batch, side, side, width), layers.Conv(width, width), theirs, dtype=dtype)


def layer_norm(x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return np.asarray(centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-5))


def group_norm(x: np.ndarray) -> np.ndarray:
    batch, height, width, channels = x.shape
    grouped = x.reshape(batch, height * width, 32, channels // 32)
    centred = grouped - grouped.mean((1, 3), keepdims=True)
    return np.asarray(centred / np.sqrt(np.square(centred).mean((1, 3), keepdims=True) + 1e-5)).reshape(x.shape)


class Upsampled(nnx.Module):
    """Nearest neighbour, then a convolution, as it is written down."""

    def __init__(self, width: int, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(width, width, (3, 3), padding=((1, 1), (1, 1)), rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.conv(upsample_2x(x))


def of_same_weights(ours: Any, theirs: Any) -> None:
    """Give our layer the weights of nnx's."""
    nnx.update(ours, nnx.state(theirs, nnx.Param))


def seconds(layer: Any, x: jax.Array) -> float:
    started = time.perf_counter()
    layer(x).block_until_ready()
    return time.perf_counter() - started


class Many(nnx.Module):
    """As many layers as a part of a model has, none of them computed."""

    def __init__(self, build: Callable[[nnx.Rngs], nnx.Module]) -> None:
        rngs = nnx.Rngs(0)
        self.layers = nnx.List([build(rngs) for _ in range(LAYERS_BUILT)])


def building() -> list[str]:
    """The row about the graph of a model, as a loader asks for it: by `nnx.eval_shape`, before any weights."""
    zeros = nnx.initializers.zeros_init()
    builds: list[Callable[[nnx.Rngs], nnx.Module]] = [
        lambda rngs: layers.Linear(1280, 1280),
        lambda rngs: nnx.Linear(1280, 1280, kernel_init=zeros, bias_init=zeros, rngs=rngs),
    ]
    times = []
    for build in builds:  # once: it takes a minute, and the ratio is no small one
        started = time.perf_counter()
        nnx.eval_shape(lambda build=build: Many(build))
        times.append(time.perf_counter() - started)
    ours_s, theirs_s = times
    shown = [f"{1e3 * ours_s:.0f}", f"{1e3 * theirs_s:.0f}", f"{theirs_s / ours_s:.0f}"]
    return [f"the graph of {LAYERS_BUILT} Linear, no weights", *shown, "", ""]


def row(pair: Pair) -> list[str]:
    of_same_weights(pair.ours, pair.theirs)
    layers.prepare_kernels(pair.ours, partial(jax.tree.map, jnp.asarray))
    x = jnp.asarray(np.random.default_rng(0).normal(size=pair.shape) + pair.mean, pair.dtype)
    programs = [jax.jit(layer) for layer in (pair.ours, pair.theirs)]
    outputs = [program(x) for program in programs]
    times = [[seconds(program, x) for program in programs] for _ in range(ROUNDS)]
    ours_s, theirs_s = (statistics.median(column) for column in zip(*times, strict=True))
    errors = ["", ""]
    if pair.reference:
        right = pair.reference(np.asarray(x, np.float64))
        errors = [f"{np.abs(np.asarray(output, np.float64) - right).max():.1e}" for output in outputs]
    return [pair.name, f"{1e3 * ours_s:.2f}", f"{1e3 * theirs_s:.2f}", f"{theirs_s / ours_s:.2f}", *errors]


@click.command()
@click.option("--write", is_flag=True, help="Put the table into docs/performance.md.")
@click.option("--page", default=PAGE, type=click.Path(path_type=Path), hidden=True)
def main(write: bool, page: Path) -> None:
    """Print the table."""
    header = ["layer", "ours, ms", "nnx's, ms", "nnx's / ours", "error of ours", "error of nnx's"]
    text = f"{circumstances(('jax', 'flax'))}\n\n{table(header, [*(row(pair) for pair in pairs()), building()])}"
    click.echo(text)
    if write:
        write_section(page, "layers", text)


if __name__ == "__main__":
    main()
