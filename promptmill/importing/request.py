"""What goes into a model folder, as frozen dataclasses."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

SDXL_BASE = "stabilityai/stable-diffusion-xl-base-1.0"
SDXL_REFINER = "stabilityai/stable-diffusion-xl-refiner-1.0"


@dataclass(frozen=True)
class Lora:
    """A LoRA and how much of it: 1 is as it was trained."""

    file: str
    weight: float = 1.0


@dataclass(frozen=True)
class Embedding:
    """A textual inversion and the word that stands for it in prompts; None for the file's name."""

    file: str
    token: str | None = None


@dataclass(frozen=True)
class Scheduler:
    """The scheduler to write, a class of diffusers, and its fields that are to differ from the checkpoint's own."""

    class_name: str | None = None
    fields: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class ImportRequest:
    """All that decides the folder. `config` is a model whose JSON and tokenizers a single file is read with.

    `dtype` is what the weights are stored in (float32, float16, bfloat16), None for the source's own.
    """

    source: str
    output: Path
    unet: str | None = None
    vae: str | None = None
    loras: tuple[Lora, ...] = ()
    embeddings: tuple[Embedding, ...] = ()
    config: str | None = None
    dtype: str | None = None
    scheduler: Scheduler = Scheduler()
    preset: str | None = None
    revision: str | None = None
    variant: str | None = None
