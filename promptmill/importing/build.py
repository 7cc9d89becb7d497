"""Everything that goes into a model folder, in order: load, fuse, add words, set the scheduler, write."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from safetensors.torch import load_file, save_file

from promptmill.importing.embeddings import add_embedding
from promptmill.importing.errors import CheckpointError
from promptmill.importing.files import read_header
from promptmill.importing.fuse import fuse_lora
from promptmill.importing.request import ImportRequest, Scheduler
from promptmill.importing.sources import check_complete, load_source, replace_unet, replace_vae, target_dtype
from promptmill.producer.scratch import appearing_whole

RECORD = "_promptmill"
"""The key of model_index.json that says what went in: diffusers skips what begins with `_`."""


@torch.no_grad()
def import_model(request: ImportRequest) -> dict[str, Any]:
    """Write the model folder that is asked for, whole or not at all; returns its record. Raises CheckpointError."""
    _be_quiet()
    if request.output.exists():
        raise CheckpointError(f"{request.output}: already exists; name a new folder")
    source = load_source(request)
    record: dict[str, Any] = {"source": source.record}
    if request.unet:
        record["unet"] = replace_unet(source, request.unet, request)
    if request.vae:
        record["vae"] = replace_vae(source, request.vae, request)
    check_complete(source.pipeline)
    record["loras"] = [fuse_lora(source.pipeline, lora) for lora in request.loras]
    record["embeddings"] = [add_embedding(source.pipeline, embedding) for embedding in request.embeddings]
    set_scheduler(source.pipeline, request.scheduler, source.scheduler_fields)
    dtype = target_dtype(request, source.dtype)
    source.pipeline.to(dtype=dtype)
    record |= {"dtype": str(dtype).removeprefix("torch."), "preset": request.preset, "versions": versions()}
    _write(source.pipeline, request.output, record)
    return record


def _be_quiet() -> None:
    for logging in (diffusers.utils.logging, transformers.utils.logging):
        logging.set_verbosity_error()
        logging.disable_progress_bar()


def set_scheduler(pipeline: Any, scheduler: Scheduler, found: dict[str, Any]) -> None:
    """Give the pipeline the scheduler asked for. `found` is what the checkpoint itself says of its schedule.

    Latents are not in [-1, 1], so clip_sample, which some classes switch on by default, is off as in SDXL's own JSON.
    """
    fields = {**found, **dict(scheduler.fields)}
    if not fields and not scheduler.class_name:
        return
    kind = getattr(diffusers, scheduler.class_name or type(pipeline.scheduler).__name__)
    config = pipeline.scheduler.config
    off = {"clip_sample": False} if not config.get("clip_sample") else {}
    pipeline.scheduler = kind.from_config(config, **off, **fields)


def versions() -> dict[str, str]:
    """Of all that had a hand in it."""
    return {
        "promptmill": version("promptmill"),
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
        "torch": str(torch.__version__),
    }


def _write(pipeline: Any, output: Path, record: dict[str, Any]) -> None:
    """The folder appears whole: written beside its place and renamed."""
    with appearing_whole(output) as unfinished:
        pipeline.save_pretrained(unfinished, safe_serialization=True)
        for name in ("text_encoder", "text_encoder_2"):
            _name_as_published(unfinished / name / "model.safetensors")
            _say_float32(unfinished / name / "config.json")
        index = unfinished / "model_index.json"
        values = json.loads(index.read_text())
        values.pop("_name_or_path", None)  # where the source lay is nobody's business
        index.write_text(json.dumps({**values, RECORD: record}, indent=2) + "\n")


def _name_as_published(path: Path) -> None:
    """Text encoders' keys begin with `text_model.`; transformers 5 may save them without."""
    known = ("text_model.", "text_projection")
    if not path.exists() or all(key.startswith(known) for key in read_header(path).shapes):
        return
    tensors = load_file(path)
    named = {key if key.startswith(known) else f"text_model.{key}": value for key, value in tensors.items()}
    save_file(named, path, metadata={"format": "pt"})


def _say_float32(path: Path) -> None:
    """What PyTorch is to load a text encoder as, whatever it is stored in: as diffusers does with UNet and VAE.

    Transformers 5 otherwise loads it in the dtype of its file, and half beside float32 does not run.
    """
    if path.exists():
        values = {name: value for name, value in json.loads(path.read_text()).items() if name != "torch_dtype"}
        path.write_text(json.dumps({**values, "dtype": "float32"}, indent=2, sort_keys=True) + "\n")
