"""Where checkpoints lie, what their headers say, and which are refused unopened. No PyTorch here."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptmill.importing.errors import CheckpointError
from promptmill.producer.models import is_hub_id

PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
HUB_FILE = re.compile(r"([\w.-]+/[\w.-]+)/([\w./-]+\.\w+)")
MAX_HEADER = 100 * 2**20  # bytes; the format's own limit (safetensors' README)

DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}


@dataclass(frozen=True)
class Header:
    """What a .safetensors file says before its weights: the metadata, and each tensor's shape and dtype."""

    metadata: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]

    @property
    def dtype(self) -> str:
        """What most of its numbers are stored in, as PyTorch calls it."""
        counts: dict[str, int] = {}
        for name, dtype in self.dtypes.items():
            counts[dtype] = counts.get(dtype, 0) + _product(self.shapes[name])
        return DTYPES.get(max(counts, key=lambda dtype: counts[dtype], default="F32"), "float32")

    def has(self, *parts: str) -> bool:
        """Whether some key holds one of `parts`."""
        return any(part in key for key in self.shapes for part in parts)


def read_header(path: Path) -> Header:
    """The header alone: eight bytes of length, then JSON. Raises CheckpointError for another kind of file."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= MAX_HEADER:
                raise ValueError(f"its header would be {length} bytes long")
            values = json.loads(file.read(length))
        metadata = values.pop("__metadata__", {})
        return Header(
            metadata,
            {name: tuple(value["shape"]) for name, value in values.items()},
            {name: value["dtype"] for name, value in values.items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: is not a .safetensors file: {error}") from error


def refuse_pickle(name: str) -> None:
    """Raises CheckpointError for a file that would run code when it is opened."""
    if name.lower().endswith(PICKLES):
        raise CheckpointError(
            f"{name}: is a pickle, and opening a pickle runs whatever code its author put in. "
            "Take the .safetensors of the same checkpoint, or convert it where you trust it"
        )


def find_file(name: str, revision: str | None = None) -> Path:
    """A .safetensors file on this machine, or one of a hub repository: `org/name/FILE.safetensors`."""
    refuse_pickle(name)
    path = Path(name).expanduser()
    if not path.is_file():
        path = _from_hub(name, revision)
    if path.suffix != ".safetensors":
        raise CheckpointError(f"{name}: is not a .safetensors file")
    return path


def _from_hub(name: str, revision: str | None) -> Path:
    found = HUB_FILE.fullmatch(name)
    if not found or name.startswith((".", "/", "~")):
        raise CheckpointError(f"{name}: no such file (expected a .safetensors file, here or org/name/FILE on the hub)")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(found[1], found[2], revision=revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(f"{name}: is neither a file here nor one found on the hub: {error}") from error


def is_repository(name: str) -> bool:
    """Whether this is `org/name` on the hub (its revision is a flag of its own), and nothing that lies here."""
    return "@" not in name and is_hub_id(name) and not Path(name).expanduser().exists()


def weights_of(folder: Path, component: str) -> list[Path]:
    """A component's .safetensors files. Raises CheckpointError where it has pickles only, or nothing."""
    files = sorted((folder / component).glob("*.safetensors"))
    if files:
        return files
    for path in sorted((folder / component).iterdir()) if (folder / component).is_dir() else []:
        refuse_pickle(str(path))
    raise CheckpointError(f"{folder / component}: has no .safetensors file")


def variant_of(files: Iterable[Path]) -> str | None:
    """`fp16` where all files are called so: `diffusion_pytorch_model.fp16.safetensors`."""
    variants = {found[1] if (found := re.search(r"\.(fp16|bf16)[.-]", path.name)) else None for path in files}
    return variants.pop() if len(variants) == 1 else None


def sha256(path: Path) -> str:
    """The hash of a whole file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe(name: str, path: Path) -> dict[str, Any]:
    """A file for the record: its name (not where it lay) and its hash."""
    return {"file": path.name if Path(name).expanduser().exists() else name, "sha256": sha256(path)}


def _product(shape: tuple[int, ...]) -> int:
    product = 1
    for side in shape:
        product *= side
    return product
