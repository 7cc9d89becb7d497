"""From safetensors files onto the devices, tensor by tensor, so that the host never holds a second copy.

The rule from our parameter to the checkpoint's key: the attribute path, joined by dots, with `kernel`,
`scale` and `embedding` all called `weight`. Kernels are transposed, because PyTorch puts outputs first.
What _MERGED names holds several of the checkpoint's side by side. Everything else is read as it lies.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from promptmill.worker.checkpoint.rounding import rounded
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


# Products of the same input are one product here, three or two of the checkpoint's: their outputs, in this order.
_MERGED = {"to_qkv": ("to_q", "to_k", "to_v"), "to_kv": ("to_k", "to_v")}
# The last part of our names for what PyTorch calls `weight`; other names are the same on both sides.
_CALLED_WEIGHT = ("kernel", "scale", "embedding")
# The last part of our name for what no checkpoint has: a quantised kernel's scales are made of the kernel.
_SCALE = "kernel_scale"

Place = tuple[Any, ...]
"""Of a parameter in a state."""


class Parameter(NamedTuple):
    """One tensor of a checkpoint: its key and shape there, and the parameter of our module that it goes into.

    Where several go into one parameter, it is the `part`-th of `parts` alike along that parameter's last axis.
    """

    path: Place
    key: str
    shape: tuple[int, ...]
    part: int = 0
    parts: int = 1


def load_weights(
    folder: Path,
    build: Callable[[], nnx.Module],
    *,
    dtype: Any,
    sharding: jax.sharding.Sharding,
    in_float32: tuple[str, ...] = (),
) -> tuple[nnx.GraphDef, nnx.State]:
    """The module that `build` makes, as its graph and a state of the weights in `folder`, cast to `dtype`.

    Keys that begin as `in_float32` says are cast to that instead. Kernels for which the module has a scale are rounded
    to what it has them in. Raises WeightsError naming the file and the keys that are missing, unexpected, or of another
    shape.
    """
    graph, state = skeleton(build)
    flat = dict(nnx.to_flat_state(state))
    wanted, tensors = _matched(folder, state)
    by_path: dict[Place, list[Parameter]] = {}
    for parameter in wanted.values():
        by_path.setdefault(parameter.path, []).append(parameter)

    def place(path: Place, merged: list[Parameter]) -> dict[Place, jax.Array]:
        stored, scale = [tensors[parameter.key] for parameter in merged], (*path[:-1], _SCALE)
        if path[-1] == "kernel" and scale in flat:
            kernel = _to_our_layout(stored, merged, np.float32)
            host = dict(zip((path, scale), rounded(kernel, flat[path].dtype), strict=True))
        else:
            own = np.float32 if merged[0].key.startswith(in_float32) else dtype
            host = {path: _to_our_layout(stored, merged, own)}
        # Waiting keeps one tensor a thread on the host: transfers that are under way hold theirs.
        return jax.block_until_ready(jax.device_put(host, sharding))

    with ThreadPoolExecutor(_THREADS) as threads:
        for placed in threads.map(place, by_path, by_path.values()):
            flat.update({path: flat[path].replace(array) for path, array in placed.items()})
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
    """Each tensor that a checkpoint has for a module's state; what is merged here, part after part."""
    for path, variable in nnx.to_flat_state(state):
        *where, leaf = path
        if leaf == _SCALE:
            continue
        name = "weight" if leaf in _CALLED_WEIGHT else str(leaf)
        names = _MERGED.get(str(where[-1]), (str(where[-1]),)) if where else ("",)
        *inputs, outputs = variable.shape
        shape = (*inputs, outputs // len(names))
        if leaf == "kernel":
            shape = tuple(shape[axis] for axis in _kernel_axes(len(shape)))
        for part, last in enumerate(names):
            key = ".".join([*map(str, where[:-1]), last, name] if where else [name])
            yield Parameter(path, key, shape, part, len(names))


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


def _to_our_layout(stored: list[StoredTensor], parameters: list[Parameter], dtype: Any) -> np.ndarray:
    """One parameter from its parts, which are read one after the other."""
    if len(parameters) == 1:
        return _turned(stored[0], parameters[0]).astype(dtype, order="C", copy=False)
    first = _turned(stored[0], parameters[0])
    width = first.shape[-1]
    merged = np.empty((*first.shape[:-1], len(parameters) * width), dtype)
    merged[..., :width] = first
    for at, (tensor, parameter) in enumerate(zip(stored[1:], parameters[1:], strict=True), start=1):
        merged[..., at * width : (at + 1) * width] = _turned(tensor, parameter)
    return merged


def _turned(stored: StoredTensor, parameter: Parameter) -> np.ndarray:
    """A tensor with inputs first, as a view."""
    array = stored.read().reshape(parameter.shape)
    if parameter.path[-1] != "kernel":
        return array
    return array.transpose((1, 0) if array.ndim == 2 else (2, 3, 1, 0))
