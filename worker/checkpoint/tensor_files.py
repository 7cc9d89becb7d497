"""The safetensors files of one component: which they are, what lies in them, and one tensor at a time.

Tensors are read from the file as bytes and never mapped: pages of a mapping count as memory of this process for
as long as it lasts, and a checkpoint in float32 would count twice. The library opens each file once, to check it.
The format: eight bytes for the header's length, the header as JSON, then the tensors, to which it has offsets
(github.com/huggingface/safetensors, README).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from promptmill.worker.errors import WeightsError

# What diffusers and transformers call the weight file of a component, and the precision they may add to it.
BASENAMES = ("diffusion_pytorch_model", "model")
VARIANTS = ("fp16", "bf16")

# The types that weights may have. The two of eight bits are those of PyTorch, plain casts without a scale.
_FLOATS: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
}
_LENGTH_BYTES = 8
# How a file begins that git-lfs has put in the place of the real one.
_LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class StoredTensor:
    """Where one tensor lies: `dtype` is the file's word for it, `offset` counts from the start of the file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def is_float(self) -> bool:
        """Whether it holds weights as they are meant, and not quantised ones or indices."""
        return self.dtype in _FLOATS

    def read(self) -> np.ndarray:
        """Its values, in the file's type; WeightsError where the file is no longer what it was."""
        count = int(np.prod(self.shape, dtype=np.int64))
        try:
            values = np.fromfile(self.file, _FLOATS[self.dtype], count, offset=self.offset)
        except OSError as error:
            raise WeightsError(f"{self.file}: cannot be read: {error.strerror}") from error
        if values.size != count:
            raise WeightsError(f"{self.file}: was cut short while it was read")
        return values.reshape(self.shape)


def find_tensors(folder: Path) -> tuple[list[Path], dict[str, StoredTensor]]:
    """The weight files of a component's folder, and every tensor in them by its name there."""
    files = weight_files(folder)
    return files, {name: tensor for file in files for name, tensor in _tensors(file).items()}


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a component: one, one of a precision variant, or the shards of an index."""
    for basename in BASENAMES:
        for infix in ("", *(f".{variant}" for variant in VARIANTS)):
            single = folder / f"{basename}{infix}.safetensors"
            if single.is_file():
                return [single]
            for index in (f"{basename}.safetensors.index{infix}.json", f"{basename}{infix}.safetensors.index.json"):
                if (folder / index).is_file():
                    return _shards(folder / index)
    raise WeightsError(f"{folder}: {_why_no_file(folder)}")


def _why_no_file(folder: Path) -> str:
    there = {path.name for path in folder.glob("*.safetensors")}
    shards = sorted(name for name in there if "-of-" in name)
    if shards:
        return f"holds shards ({_some(shards)}), but not their index (*.safetensors.index.json)"
    pickled = sorted(path.name for ending in ("bin", "pt", "ckpt") for path in folder.glob(f"*.{ending}"))
    if pickled and not there:
        return (
            f"holds only {', '.join(pickled)}. A pickled file can run any code when it is opened; "
            "convert it to safetensors"
        )
    found = f"; it holds {_some(sorted(there))}" if there else ""
    return f"has no safetensors file named {' or '.join(BASENAMES)}{found}"


def _some(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _shards(index: Path) -> list[Path]:
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(weight_map.values()))
        files = [index.parent / name for name in names]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{index}: is not an index of safetensors shards, with a file for each tensor") from error
    if not files:
        raise WeightsError(f"{index}: its weight_map is empty")
    for file in files:
        if file.parent != index.parent or not file.is_file():
            raise WeightsError(f"{index}: names the shard {file.name}, which is not beside it")
    return files


def _tensors(file: Path) -> dict[str, StoredTensor]:
    _check(file)
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        header = json.loads(stream.read(length))
    data = _LENGTH_BYTES + length
    return {
        name: StoredTensor(file, entry["dtype"], tuple(entry["shape"]), data + entry["data_offsets"][0])
        for name, entry in header.items()
        if name != "__metadata__"
    }


def _check(file: Path) -> None:
    """WeightsError unless the library takes the file: header, types, and offsets that fill it to its end."""
    try:
        with safe_open(file, framework="np"):
            return
    except OSError as error:
        raise WeightsError(f"{file}: cannot be read: {error.strerror or 'not a regular file'}") from error
    except SafetensorError as error:
        raise WeightsError(f"{file}: cannot be read as safetensors: {_what_is_wrong(file)}") from error


def _what_is_wrong(file: Path) -> str:
    with file.open("rb") as stream:
        start = stream.read(len(_LFS_POINTER))
    if start == _LFS_POINTER:
        return "it is a pointer of git-lfs; fetch the file itself with `git lfs pull`"
    return f"its {file.stat().st_size} bytes are cut short, damaged, or of another format"
