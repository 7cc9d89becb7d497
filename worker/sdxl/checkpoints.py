"""From a model's name to a folder: one that is there, one from the hub, or the one that is built in."""

import os
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from worker.sdxl.errors import ModelNotFoundError
from worker.sdxl.tiny import TINY_VERSION, write_tiny_random

TINY_RANDOM = "tiny-random"

# Of a hub repository, what rendering reads: no pickles, no ONNX, no single files beside the folders.
_COMPONENTS = ("scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet", "vae")
_PATTERNS = ["model_index.json"] + [
    f"{name}/*.{ending}" for name in _COMPONENTS for ending in ("safetensors", "json", "txt")
]


def find_model(name: str) -> Path:
    """The diffusers folder of `name`: `tiny-random`, a path, or a hub id.

    A hub id is `owner/name`, as in `stabilityai/stable-diffusion-xl-base-1.0`. Raises ModelNotFoundError.
    """
    if name == TINY_RANDOM:
        return write_tiny_random(cache_folder() / f"{TINY_RANDOM}-v{TINY_VERSION}")
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "model_index.json").is_file():
            raise ModelNotFoundError(f"{folder}: has no model_index.json, so it is not a diffusers folder")
        return folder
    if folder.is_file():
        raise ModelNotFoundError(f"{folder}: is a single file; `promptmill import-model` makes a folder of it")
    return _from_hub(name)


def _from_hub(name: str) -> Path:
    try:
        return Path(snapshot_download(name, allow_patterns=_PATTERNS))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelNotFoundError(
            f"{name}: is neither {TINY_RANDOM!r}, nor a folder, nor a model that the hub gives: {error}"
        ) from error


def cache_folder() -> Path:
    """This user's own: weights are only data, but what strangers can write, nobody should load."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "promptmill"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
