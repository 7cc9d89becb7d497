"""Which models there are to name, and what a job gets where the user said nothing. Looks at JSON only: no JAX.

A model is `tiny-random` (made by the worker itself), a folder in diffusers' layout, or a hub id, with `@revision`
if one is wanted.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from producer.errors import ModelNameError

TINY_RANDOM = "tiny-random"
"""A small SDXL with random weights: its pictures are noise. For trying the machinery without a download."""

DEFAULT_MODEL = TINY_RANDOM

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


@dataclass(frozen=True, slots=True)
class Defaults:
    """What decides a job's pixels where neither its row nor a flag does."""

    width: int
    height: int
    num_inference_steps: int = 50
    guidance_scale: float = 5.0


BUILT_IN = {TINY_RANDOM: Defaults(width=64, height=64, num_inference_steps=8)}

SDXL_DEFAULTS = Defaults(width=1024, height=1024)
"""diffusers' own defaults for StableDiffusionXLPipeline.__call__."""


def resolve_model(name: str) -> str:
    """The name under which workers find the model: folders become absolute. Raises ModelNameError."""
    if name in BUILT_IN:
        return name
    folder = _folder(name)
    if folder is not None:
        if not (folder / "model_index.json").is_file():
            raise ModelNameError(f"{folder} is no model folder: it has no model_index.json (diffusers' layout)")
        return str(folder.resolve())
    if name.startswith((".", "/", "~")) or not HUB_ID.fullmatch(name):
        raise ModelNameError(
            f"no model {name!r}: expected {', '.join(BUILT_IN)}, a folder in diffusers' layout, or a hub id (org/name)"
        )
    return name


def _folder(name: str) -> Path | None:
    if not name:
        return None  # for Path it would be the current folder
    try:
        folder = Path(name).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError):  # a name too long for a file, no such user's home
        return None


def model_defaults(model: str) -> Defaults:
    """The defaults of a resolved model: a folder's own size is read from its JSON, a hub id gets SDXL's."""
    if model in BUILT_IN:
        return BUILT_IN[model]
    folder = Path(model)
    if not folder.is_dir():
        return SDXL_DEFAULTS
    try:
        sample_size = json.loads((folder / "unet" / "config.json").read_text())["sample_size"]
        blocks = json.loads((folder / "vae" / "config.json").read_text())["block_out_channels"]
        side = int(sample_size) * 2 ** (len(blocks) - 1)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelNameError(f"{folder} is no SDXL model folder: {error}") from error
    return Defaults(width=side, height=side)
