"""From safetensors files onto the devices, tensor by tensor, so that the host never holds a second copy.

The rule from our parameter to the checkpoint's key: the attribute path, joined by dots, with `kernel`,
`scale` and `embedding` all called `weight`. Kernels are transposed, because PyTorch puts outputs first.
Everything else is read as it lies.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open

from worker.sdxl.errors import WeightsError

# What diffusers and transformers call the weight file of a component, and the precision they may add to it.
BASENAMES = ("diffusion_pytorch_model", "model")
VARIANTS = ("fp16", "bf16")

# Keys that no picture depends on: an old buffer, and the half of the autoencoder that encodes.
_NOT_NEEDED = ("position_ids", "encoder.conv", "encoder.down", "encoder.mid", "quant_conv.")
# What the autoencoder's attention was called before diffusers 0.17; some files hold it as 1 x 1 convolutions.
_OLD_ATTENTION = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


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
    graph, state = nnx.split(nnx.eval_shape(build))
    wanted = {parameter.key: parameter for parameter in parameters(state)}
    flat = dict(nnx.to_flat_state(state))
    files = weight_files(folder)
    with ExitStack() as stack:
        tensors = _index(files, stack)
        _check(files, wanted, tensors)
        for key, parameter in wanted.items():
            host = _to_our_layout(_read(tensors[key]), parameter, dtype)
            flat[parameter.path] = flat[parameter.path].replace(jax.device_put(host, sharding))
    return graph, nnx.from_flat_state(flat)


def parameters(state: nnx.State) -> Iterator[Parameter]:
    """Every parameter of a module's state, with the key and the shape that the checkpoint has for it."""
    for path, variable in nnx.to_flat_state(state):
        *where, leaf = path
        name = "bias" if leaf == "bias" else "weight"
        shape = tuple(variable.shape)
        if leaf == "kernel":
            shape = tuple(shape[axis] for axis in _kernel_axes(len(shape)))
        yield Parameter(path, ".".join([*map(str, where), name]), shape)


def _kernel_axes(ndim: int) -> tuple[int, ...]:
    # I O <-> O I, and H W I O -> O I H W.
    return (1, 0) if ndim == 2 else (3, 2, 0, 1)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a component: one, one of a precision variant, or the shards of an index."""
    for basename in BASENAMES:
        for variant in ("", *VARIANTS):
            infix = f".{variant}" if variant else ""
            single = folder / f"{basename}{infix}.safetensors"
            if single.is_file():
                return [single]
            for index in (
                f"{basename}.safetensors.index{infix}.json",
                f"{basename}{infix}.safetensors.index.json",
            ):
                if (folder / index).is_file():
                    return _shards(folder / index)
    raise WeightsError(f"{folder}: {_why_no_file(folder)}")


def _why_no_file(folder: Path) -> str:
    pickled = [path.name for path in (*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.ckpt"))]
    if pickled:
        return (
            f"holds only {', '.join(sorted(pickled))}. A pickled file can run any code when it is opened; "
            "convert it to safetensors"
        )
    return f"has no safetensors file named {' or '.join(BASENAMES)}"


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{index}: is not an index of safetensors shards: {error!r}") from error
    files = [index.parent / name for name in names]
    for file in files:
        if file.parent != index.parent or not file.is_file():
            raise WeightsError(f"{index}: names the shard {file.name}, which is not beside it")
    return files


class _Tensor(NamedTuple):
    file: Path
    handle: Any
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.handle.get_slice(self.name).get_shape())


def _index(files: list[Path], stack: ExitStack) -> dict[str, _Tensor]:
    tensors = {}
    for file in files:
        try:
            handle = stack.enter_context(safe_open(file, framework="np"))
        except (OSError, SafetensorError) as error:
            raise WeightsError(f"{file}: cannot be read as safetensors: {error}") from error
        for name in handle.keys():  # noqa: SIM118  (safe_open is no mapping)
            tensors[_canonical(name)] = _Tensor(file, handle, name)
    return tensors


def _canonical(name: str) -> str:
    for old, new in _OLD_ATTENTION.items():
        name = name.replace(old, new)
    # transformers 5 writes the first text encoder without the prefix that every published file has.
    if name.startswith(("embeddings.", "encoder.layers.", "final_layer_norm.")):
        return f"text_model.{name}"
    return name


def _check(files: list[Path], wanted: dict[str, Parameter], found: dict[str, _Tensor]) -> None:
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
        where = files[0] if len(files) == 1 else f"{files[0].parent} ({len(files)} shards)"
        raise WeightsError(f"{where} does not fit the configuration: {'; '.join(said)}")


def _is_not_needed(key: str) -> bool:
    return key.startswith(_NOT_NEEDED) or key.endswith("position_ids")


def _same_shape(got: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    return got == expected or got == (*expected, 1, 1)


def _some(keys: list[str], most: int = 5) -> str:
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + more


def _read(tensor: _Tensor) -> np.ndarray:
    try:
        return tensor.handle.get_tensor(tensor.name)
    except (SafetensorError, TypeError, KeyError, AttributeError) as error:
        raise WeightsError(f"{tensor.file}: {tensor.name} cannot be read: {error}") from error


def _to_our_layout(array: np.ndarray, parameter: Parameter, dtype: Any) -> np.ndarray:
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise WeightsError(f"{parameter.key} is {array.dtype}, expected a floating point type")
    array = array.reshape(parameter.shape)
    if parameter.path[-1] == "kernel":
        array = array.transpose((1, 0) if array.ndim == 2 else (2, 3, 1, 0))
    return array.astype(dtype, order="C", copy=False)
