"""SDXL compiled for a TPU on a machine that has none: what fits, and how long it would take by the compiler's word.

    pip install --no-deps --target LIBTPU libtpu
    TPU_LIBRARY_PATH=LIBTPU/libtpu/libtpu.so python -m benchmarks.ahead --chips v5e v6e [--write docs/performance.md]

libtpu brings the whole compiler. It is kept out of the environment, where JAX would look for a TPU at each start. The
times are predicted (`tpu_schedule.py`), not measured: good to find what is slow and to compare two ways, with nothing
in them of what a chip does beside its schedule.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.experimental import topologies

from benchmarks.random_sdxl import SIZES, write_plain_files
from benchmarks.report import circumstances, table, write_section
from benchmarks.tpu_schedule import CHIPS, DUMP, Chip, Instruction, by_kind, schedule
from promptmill.worker.ceilings import PEAKS
from promptmill.worker.checkpoint.weights import skeleton
from promptmill.worker.devices import Devices
from promptmill.worker.flops import count_flops
from promptmill.worker.nn.layers import with_prepared_kernels
from promptmill.worker.nn.vae import IN_FLOAT32
from promptmill.worker.quantization import FORMATS, UNQUANTIZED
from promptmill.worker.sampling.samplers import row_at
from promptmill.worker.sdxl.config import ModelConfig
from promptmill.worker.sdxl.generate import condition_unet, decode, encode_text, predict
from promptmill.worker.sdxl.parts import builders
from promptmill.worker.sdxl.program import Model
from promptmill.worker.sdxl.requests import Kind, PlainRequest, prepare_inputs
from promptmill.worker.text.prompts import Tokenizers

SCOPES = ("attention", "linear", "conv", "norm")
"""Of layers, as worker/nn names them."""
PARTS = ("text", "unet", "vae")
STEPS = 20
HEADER = ["chip", "part", "images", "compile, s", "weights, GB", "beside, GB", "TFLOP", "predicted, ms", "of the peak"]


class Part(NamedTuple):
    """A function, and the shapes that it is called with: networks' weights first."""

    function: Callable[..., Any]
    networks: tuple[str, ...]
    arguments: tuple[Any, ...]


class Predicted(NamedTuple):
    compiled: Any
    seconds_to_compile: float
    flops: float
    instructions: list[Instruction]


def main() -> None:
    options = _options()
    rows: list[list[str]] = []
    kinds: list[list[str]] = []
    with dumping() as dump:
        for name in options.chips:
            _predict(name, options, dump, rows, kinds)
    text = _text(rows, kinds, options)
    print(text)
    if options.write:
        write_section(options.write, "compiled ahead", text)


def _predict(name: str, options: argparse.Namespace, dump: Path, rows: list[list[str]], kinds: list[list[str]]) -> None:
    """Add what is predicted of a chip."""
    chip, times = CHIPS[name], {}
    dtypes = {"vae_dtype": jnp.dtype(options.vae_dtype), "quantize": options.quantize}
    model = model_of_shapes(options.model, devices_of(chip)[:1], **dtypes)
    for part, made in parts(model, options.size, options.batch).items():
        if part in options.parts:
            predicted = compile_ahead(traced(model, made), dump)
            times[part] = milliseconds(predicted.instructions, chip)
            rows.append([name, part, str(options.batch), *_cells(model, made, predicted, times[part], chip)])
            spent = by_kind(predicted.instructions, chip, SCOPES)
            kinds.append([name, part, *(f"{1000 * spent[kind]:.1f}" for kind in (*SCOPES, "copies", "the rest"))])
            print(f"{name} {part}: done", file=sys.stderr, flush=True)
            _tell(predicted.instructions, chip, options.tell)
    if times.keys() == set(PARTS):
        image = (times["text"] + STEPS * times["unet"] + times["vae"]) / options.batch
        rows.append([name, f"an image of {STEPS} steps", "1", "", "", "", "", f"{image:,.0f}", ""])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chips", nargs="+", choices=CHIPS, default=list(CHIPS))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--model", choices=SIZES, default="full")
    parser.add_argument("--size", type=int, default=1024, help="pixels of square images")
    parser.add_argument("--batch", type=int, default=1, help="images of a device")
    parser.add_argument("--vae-dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--quantize", default=UNQUANTIZED, choices=[UNQUANTIZED, *FORMATS])
    parser.add_argument("--tell", type=int, default=0, metavar="N", help="the N longest operations of each part")
    parser.add_argument("--write", type=Path, help="a Markdown file, into whose section the tables go")
    return parser.parse_args()


@contextmanager
def dumping() -> Iterator[Path]:
    """A folder into which libtpu, not loaded yet, will write the bundles of what it compiles."""
    with tempfile.TemporaryDirectory(prefix="bundles-") as folder:
        os.environ |= {"LIBTPU_INIT_ARGS": DUMP.format(folder=folder), **WITHOUT_TPU}
        yield Path(folder)


WITHOUT_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
"""What libtpu otherwise asks Google's metadata server for, and that more than one process may load it."""


def devices_of(chip: Chip) -> list[jax.Device]:
    """The chips of its topology, which can be compiled for, and nothing else."""
    return list(topologies.get_topology_desc(platform="tpu", topology_name=chip.topology).devices)


def model_of_shapes(
    size: str, devices: list[jax.Device], *, vae_dtype: Any = jnp.float32, quantize: str = UNQUANTIZED
) -> Model:
    """A model as `Model.load` would make it on these devices, in bfloat16, whose weights are shapes."""
    own = Devices.of(devices)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_plain_files(folder, SIZES[size])
        config = ModelConfig.from_folder(folder)
        tokenizers = Tokenizers(folder, ("tokenizer", "tokenizer_2"))
    graphs, weights = {}, {}
    for name, build in builders(config, quantize).items():
        graph, state = skeleton(build)
        dtype = vae_dtype if name == "vae" else jnp.bfloat16
        empty = nnx.from_flat_state(
            [(path, _empty(path, leaf, name, dtype)) for path, leaf in nnx.to_flat_state(state)]
        )
        with compiling_for(own.platform):
            graphs[name], prepared = with_prepared_kernels(graph, empty, lambda tree: tree)
        weights[name] = jax.tree.map(lambda leaf: shape(leaf.shape, leaf.dtype, own), prepared)
    return Model(config, tokenizers, graphs, weights, own, quantize)


def _empty(path: tuple[Any, ...], leaf: Any, network: str, dtype: Any) -> Any:
    """A parameter that takes no memory, in the dtype that it would be loaded in."""
    in_float32 = network == "vae" and ".".join(map(str, path)).startswith(IN_FLOAT32)
    if leaf.dtype != jnp.float32 or path[-1] == "kernel_scale" or in_float32:
        dtype = leaf.dtype
    return leaf.replace(np.broadcast_to(np.zeros((), dtype), leaf.shape))


def shape(sizes: tuple[int, ...], dtype: Any, devices: Devices) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, dtype, sharding=devices.whole)


def compiling_for(platform: str) -> Any:
    """Kernels and algorithms are chosen by the backend of this process, which is a CPU's."""
    return mock.patch("jax.default_backend", lambda: platform)


def parts(model: Model, size: int, batch: int) -> dict[str, Part]:
    """What an image is made of: its texts, a guided step, the decoder; for a batch."""
    kind = Kind(size, size, guided=True, stochastic=False)
    sample = prepare_inputs(model.config, model.tokenizers, [PlainRequest("", size, size)], kind).inputs
    inputs = jax.tree.map(lambda part: shape((batch, *part.shape[1:]), part.dtype, model.devices), sample)

    def text(nets: dict[str, Any], inputs: Any) -> Any:
        return condition_unet(nets["unet"], encode_text(nets, inputs), inputs.guidance_scale)

    def unet(nets: dict[str, Any], latents: Any, given: Any, inputs: Any) -> Any:
        guidance = inputs.guidance_scale, inputs.guidance_rescale
        now = row_at(inputs.tables, jnp.array(0)).timestep
        return predict(nets["unet"], latents, now, given, None, *guidance, passes=2)[0]

    def vae(nets: dict[str, Any], latents: Any) -> Any:
        return jax.lax.map(partial(decode, nets["vae"], nets["vae"].decoder.conv_in.dtype), latents)

    texts = Part(text, ("text_encoder", "text_encoder_2", "unet"), (inputs,))
    given = jax.tree.map(lambda leaf: shape(leaf.shape, leaf.dtype, model.devices), traced(model, texts).out_info)
    step = Part(unet, ("unet",), (inputs.noise, given, inputs))
    return {"text": texts, "unet": step, "vae": Part(vae, ("vae",), (inputs.noise,))}


def traced(model: Model, part: Part) -> Any:
    """As JAX hands it to a compiler for the model's devices."""

    def call(weights: dict[str, Any], *arguments: Any) -> Any:
        return part.function({name: nnx.merge(model.graphs[name], weights[name]) for name in weights}, *arguments)

    with compiling_for(model.devices.platform):
        return jax.jit(call).trace(_weights(model, part), *part.arguments)


def _weights(model: Model, part: Part) -> dict[str, Any]:
    return {name: model.weights[name] for name in part.networks}


def compile_ahead(traced: Any, dump: Path) -> Predicted:
    """Compile what JAX has traced for a TPU, and read the schedule; the compiler dumps into a folder, now empty."""
    for old in dump.iterdir():
        old.unlink()
    with compiling_for("tpu"):
        lowered = traced.lower()
    started = time.monotonic()
    compiled = lowered.compile()
    seconds = time.monotonic() - started
    return Predicted(compiled, seconds, count_flops(traced.jaxpr, trips=1), schedule(compiled.as_text(), dump))


def _cells(model: Model, part: Part, predicted: Predicted, spent: float, chip: Chip) -> Iterator[str]:
    yield f"{predicted.seconds_to_compile:.0f}"
    yield f"{sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(_weights(model, part))) / 1e9:.2f}"
    yield f"{predicted.compiled.memory_analysis().temp_size_in_bytes / 1e9:.2f}"
    yield f"{predicted.flops / 1e12:.2f}"
    yield f"{spent:.1f}"
    yield f"{predicted.flops / spent / 1e9 / PEAKS[chip.kind]:.0%}"


def _tell(instructions: list[Instruction], chip: Chip, count: int) -> None:
    """The longest operations, alike ones together."""
    alike: dict[tuple[str, str], list[Instruction]] = {}
    for each in instructions:
        alike.setdefault((each.opcode, each.source), []).append(each)
    for (opcode, source), them in sorted(alike.items(), key=lambda item: -milliseconds(item[1], chip))[:count]:
        said = f"{milliseconds(them, chip):8.2f} ms, {len(them):>4} x {opcode} {source} ({them[0].name})"
        print(said, file=sys.stderr)


def milliseconds(instructions: list[Instruction], chip: Chip) -> float:
    return 1000 * sum(each.seconds(chip) for each in instructions)


def _text(rows: list[list[str]], kinds: list[list[str]], options: argparse.Namespace) -> str:
    about = f"{options.model} size, {options.size} x {options.size} pixels, bfloat16, the VAE in {options.vae_dtype}"
    about += "" if options.quantize == UNQUANTIZED else f", the UNet in {options.quantize}"
    return f"""`python -m benchmarks.ahead`: {about}. Predicted by the compiler, measured on no TPU.
{circumstances(("jax", "libtpu"))}.

{table(HEADER, rows)}

Predicted milliseconds by layer; "copies" are what moves between layers:

{table(["chip", "part", *SCOPES, "copies", "the rest"], kinds)}"""


if __name__ == "__main__":
    main()
