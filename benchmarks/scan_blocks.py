"""Ten transformer blocks of SDXL's deepest level, written out or as one that `lax.scan` repeats over stacked weights.

    python -m benchmarks.scan_blocks [--write]

Compiled as a step of four is, then run by turns in one process: a repeated block compiles faster, and whether it runs
as fast decides. Tokens: 64 is that level at 256 x 256 pixels, 256 at 512 x 512. Random weights, float32.
"""

import statistics
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import click
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from benchmarks.layers import PAGE, seconds
from benchmarks.report import circumstances, table, write_section
from promptmill.worker.nn.transformer import KeysValues, TransformerBlock

BLOCKS = 10
STEPS = 4
WIDTH, HEADS, CONTEXT = 1280, 20, 2048
ROUNDS = 7
HEADER = ["tokens", "way", "compile, s", "temporaries, MB", "a step, s", "of written out"]


def block_and_weights() -> tuple[Any, list[Any]]:
    """The graph of one block, and random weights for each."""
    graph, state = nnx.split(nnx.eval_shape(lambda: TransformerBlock(WIDTH, CONTEXT, heads=HEADS)))
    return graph, [random_like(state, seed) for seed in range(BLOCKS)]


def random_like(tree: Any, seed: int) -> Any:
    """Arrays of the shapes in `tree`."""
    source = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(0.02 * source.standard_normal(leaf.shape), jnp.float32), tree)


def stacked(trees: Sequence[Any]) -> Any:
    """Each leaf of all of them, in one array."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def of_steps(step: Any) -> Any:
    """`STEPS` of it in a loop, as the sampler's stand in one."""
    return lambda x, *given: lax.fori_loop(0, STEPS, lambda _, x: step(x, *given), x)


def sides(graph: Any, weights: list[Any], texts: list[KeysValues]) -> dict[str, tuple[Any, tuple[Any, Any]]]:
    """Each way's step, and what it is given."""

    def written_out(x: Any, weights: list[Any], texts: list[KeysValues]) -> Any:
        for own, text in zip(weights, texts, strict=True):
            x = nnx.merge(graph, own)(x, text)
        return x

    def scanned(x: Any, weights: Any, texts: Any) -> Any:
        return lax.scan(lambda x, own: (nnx.merge(graph, own[0])(x, own[1]), None), x, (weights, texts))[0]

    return {
        "written out": (written_out, (weights, texts)),
        "scanned": (scanned, (stacked(weights), stacked(texts))),
    }


def call(program: Any, given: tuple[Any, Any], x: Any) -> Any:
    return program(x, *given)


def rows(tokens: int) -> list[list[str]]:
    """Both ways, for an image and its negative prompt of so many tokens."""
    graph, weights = block_and_weights()
    empty = jnp.zeros((2, 77, HEADS, WIDTH // HEADS))
    x = random_like(jnp.zeros((2, tokens, WIDTH)), BLOCKS)
    texts = [random_like(KeysValues(empty, empty), seed) for seed in range(BLOCKS)]
    programs: dict[str, Any] = {}
    calls, compile_s = {}, {}
    for name, (step, given) in sides(graph, weights, texts).items():
        started = time.perf_counter()
        programs[name] = jax.jit(of_steps(step)).lower(x, *given).compile()
        compile_s[name] = time.perf_counter() - started
        calls[name] = partial(call, programs[name], given)
    times = [{name: seconds(each, x) / STEPS for name, each in calls.items()} for _ in range(ROUNDS + 1)][1:]
    return [
        [
            str(tokens),
            name,
            f"{compile_s[name]:.2f}",
            f"{program.memory_analysis().temp_size_in_bytes / 1e6:.0f}",
            f"{statistics.median(one[name] for one in times):.3f}",
            f"{statistics.median(one[name] / one['written out'] for one in times):.2f}",
        ]
        for name, program in programs.items()
    ]


@click.command()
@click.option("--write", is_flag=True, help="Put the table into docs/performance.md.")
def main(write: bool) -> None:
    """Print the table."""
    found = table(HEADER, [row for tokens in (64, 256) for row in rows(tokens)])
    text = f"`python -m benchmarks.scan_blocks`: {circumstances(('jax', 'flax'))}.\n\n{found}"
    click.echo(text)
    if write:
        write_section(PAGE, "scan over blocks", text)


if __name__ == "__main__":
    main()
