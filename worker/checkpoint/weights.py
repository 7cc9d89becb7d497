"""From safetensors files onto the devices, tensor by tensor, so that the host never holds a second copy.

The rule from our parameter to the checkpoint's key: the attribute path, joined by dots, with `kernel`,
`scale` and `embedding` all called `weight`. Kernels are transposed, because PyTorch puts outputs first.
Everything else is read as it lies.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from promptmill.worker.checkpoint.tensor_files import StoredTensor, find_tensors
from promptmill.worker.errors import WeightsError

# Casting and transposing take most of the time, and numpy lets other threads run meanwhile. Each holds one tensor.
_THREADS = 4

# Keys that no image depends on, by how they begin: the half of the autoencoder that encodes, its way in and out
# where the configuration has none, what training leaves, and the projection of a text encoder that is not asked for it.
_NOT_NEEDED = (
    "encoder.conv",
    "encoder.down",
    "encoder.mid",
    "quant_conv.",
    "post_quant_conv.",
    "loss.",
    "model_ema.",
    "text_projection.",
    "logit_scale",
)
# An old buffer, 0 to 76, under several names.
_POSITIONS = "position_ids"
# What the autoencoder's attention was called before diffusers 0.17; some files hold it as 1 x 1 convolutions.
_OLD_ATTENTION = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


# The last part of our names for what PyTorch calls `weight`; other names are the same on both sides.
_CALLED_WEIGHT = ("kernel", "scale", "embedding")


class Parameter(NamedTuple):
    """One parameter of a module: where it is, and what the checkpoint calls it and how it is shaped there."""

    path: tuple[Any, ...]
    key: str
    shape: tuple[int, ...]


def load_weights(
    folder: Path, build: Callable[[], nnx.Module], *, dtype: Any, sharding: jax.sharding.Sharding
) -> tuple[nnx.GraphDef, nnx.State]:
    """The module that `build` makes, as its graph and a state of the weights in `folder`, cast to `dtype`.

    Raises WeightsError naming the file and the keys that are missing, unexpected, or of another shape.
    """
    graph, state = skeleton(build)
    flat = dict(nnx.to_flat_state(state))
    wanted, tensors = _matched(folder, state)

    def place(parameter: Parameter) -> jax.Array:
        host = _to_our_layout(tensors[parameter.key].read(), parameter, dtype)
        # Waiting keeps one tensor a thread on the host: transfers that are under way hold theirs.
        return jax.block_until_ready(jax.device_put(host, sharding))

    with ThreadPoolExecutor(_THREADS) as threads:
        for parameter, placed in zip(wanted.values(), threads.map(place, wanted.values()), strict=True):
            flat[parameter.path] = flat[parameter.path].replace(placed)
    return graph, nnx.from_flat_state(flat)


def check_weights(folder: Path, build: Callable[[], nnx.Module]) -> None:
    """Find out from the files' headers whether `load_weights` would take them. Raises WeightsError as it does."""
    _matched(folder, skeleton(build)[1])


def skeleton(build: Callable[[], nnx.Module]) -> tuple[nnx.GraphDef, nnx.State]:
    """The module's graph and its state as shapes: most of the time that a small model takes to load, so it is kept."""
    if not isinstance(build, partial):
        return nnx.split(nnx.eval_shape(build))
    return _skeleton(build.func, build.args, tuple(sorted(build.keywords.items())))


@lru_cache(maxsize=8)
def _skeleton(
    of: Callable[..., nnx.Module], args: tuple[Any, ...], keywords: tuple[tuple[str, Any], ...]
) -> tuple[nnx.GraphDef, nnx.State]:
    return nnx.split(nnx.eval_shape(partial(of, *args, **dict(keywords))))


def _matched(folder: Path, state: nnx.State) -> tuple[dict[str, Parameter], dict[str, StoredTensor]]:
    """The state's parameters and the folder's tensors, both by key, which fit one another. Raises WeightsError."""
    wanted = {parameter.key: parameter for parameter in parameters(state)}
    files, found = find_tensors(folder)
    tensors = {_canonical(name): tensor for name, tensor in found.items()}
    _check(files, wanted, tensors)
    return wanted, tensors


def parameters(state: nnx.State) -> Iterator[Parameter]:
    """Every parameter of a module's state, with the key and the shape that the checkpoint has for it."""
    for path, variable in nnx.to_flat_state(state):
        *where, leaf = path
        name = "weight" if leaf in _CALLED_WEIGHT else str(leaf)
        shape = tuple(variable.shape)
        if leaf == "kernel":
            shape = tuple(shape[axis] for axis in _kernel_axes(len(shape)))
        yield Parameter(path, ".".join([*map(str, where), name]), shape)


def _kernel_axes(ndim: int) -> tuple[int, ...]:
    # I O <-> O I, and H W I O -> O I H W.
    return (1, 0) if ndim == 2 else (3, 2, 0, 1)


def _canonical(name: str) -> str:
    for old, new in _OLD_ATTENTION.items():
        name = name.replace(old, new)
    # transformers 5 writes the first text encoder without the prefix that every published file has.
    if name.startswith(("embeddings.", "encoder.layers.", "final_layer_norm.")):
        return f"text_model.{name}"
    # And the safety checker with one prefix where every published file has it twice.
    return name.removeprefix("vision_model.") if name.startswith("vision_model.vision_model.") else name


def _check(files: list[Path], wanted: dict[str, Parameter], found: dict[str, StoredTensor]) -> None:
    where = files[0] if len(files) == 1 else f"{files[0].parent} ({len(files)} shards)"
    _check_types(where, {key: found[key] for key in wanted if key in found})
    missing = sorted(wanted.keys() - found.keys())
    unexpected = sorted(key for key in found.keys() - wanted.keys() if not _is_not_needed(key))
    misshaped = [
        f"{key} is {list(found[key].shape)}, expected {list(parameter.shape)}"
        for key, parameter in wanted.items()
        if key in found and not _same_shape(found[key].shape, parameter.shape)
    ]
    faults = [("missing", missing), ("unexpected", unexpected), ("of another shape", misshaped)]
    said = [f"{len(keys)} keys are {what}: {_some(keys)}" for what, keys in faults if keys]
    if said:
        raise WeightsError(f"{where} does not fit the configuration: {'; '.join(said)}")


def _check_types(where: Path | str, tensors: dict[str, StoredTensor]) -> None:
    quantised = [f"{key} is {tensor.dtype}" for key, tensor in sorted(tensors.items()) if not tensor.is_float]
    if quantised:
        raise WeightsError(
            f"{where}: {_some(quantised)}, expected a floating point type; "
            "weights that were quantised to integers are not implemented"
        )


def _is_not_needed(key: str) -> bool:
    return key.startswith(_NOT_NEEDED) or key.endswith(_POSITIONS)


def _same_shape(got: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    return got == expected or got == (*expected, 1, 1)


def _some(keys: list[str], most: int = 5) -> str:
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + more


def _to_our_layout(array: np.ndarray, parameter: Parameter, dtype: Any) -> np.ndarray:
    array = array.reshape(parameter.shape)
    if parameter.path[-1] == "kernel":
        array = array.transpose((1, 0) if array.ndim == 2 else (2, 3, 1, 0))
    return array.astype(dtype, order="C", copy=False)
