"""The model that an import begins with: a folder, a hub id or a single file, loaded by diffusers as a pipeline."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)

from promptmill.importing.errors import CheckpointError
from promptmill.importing.files import (
    Header,
    describe,
    find_file,
    is_repository,
    read_header,
    refuse_pickle,
    sha256,
    variant_of,
    weights_of,
)
from promptmill.importing.request import SDXL_BASE, SDXL_REFINER, ImportRequest
from promptmill.producer.words import count

PIPELINES = (StableDiffusionXLPipeline, StableDiffusionXLImg2ImgPipeline)
_WEIGHTED = ("text_encoder", "text_encoder_2", "unet", "vae")
_JSON_ONLY = ["model_index.json", "**/*.json", "**/*.txt", "*/*.json", "*/*.txt"]

# What tells an SDXL checkpoint of one file apart: Stability's generative-models keys.
_BASE_KEY = "conditioner.embedders.1.model."
_REFINER_KEY = "conditioner.embedders.0.model.text_projection"
_UNET_PREFIX = "model.diffusion_model."


@dataclass(frozen=True)
class Source:
    """A loaded pipeline, the folder that its JSON is from, what it was stored in, and what the record says of it."""

    pipeline: Any
    folder: Path
    dtype: torch.dtype
    record: dict[str, Any]
    scheduler_fields: dict[str, Any]


def load_source(request: ImportRequest) -> Source:
    """Load what the request begins with, in float32 if LoRAs are to be fused, else as it will be stored."""
    refuse_pickle(request.source)
    path = Path(request.source).expanduser()
    if path.is_dir():
        return _from_folder(path, {"folder": path.resolve().name}, request, hashed=True)
    if path.suffix != ".safetensors" and not path.is_file() and is_repository(request.source):
        folder = _download(request)
        record = {"hub": request.source, "revision": folder.name}
        return _from_folder(folder, record, request, hashed=False)
    return _from_single_file(find_file(request.source, request.revision), request)


def _from_folder(folder: Path, record: dict[str, Any], request: ImportRequest, *, hashed: bool) -> Source:
    if not (folder / "model_index.json").is_file():
        raise CheckpointError(f"{folder}: has no model_index.json, so it is not a diffusers folder")
    files = [path for name in _WEIGHTED if (folder / name).is_dir() for path in weights_of(folder, name)]
    unet_files = weights_of(folder, "unet")
    variant = request.variant or variant_of(unet_files)
    stored = _stored(unet_files, variant)
    pipeline: Any = DiffusionPipeline.from_pretrained(
        folder,
        dtype=_working(request, stored),
        variant=variant,
        use_safetensors=True,
        local_files_only=True,
        add_watermarker=False,
    )
    if not isinstance(pipeline, PIPELINES):
        raise CheckpointError(f"{folder}: is a {type(pipeline).__name__}, which is neither SDXL nor its refiner")
    if hashed:
        record["sha256"] = {str(path.relative_to(folder)): sha256(path) for path in files}
    return Source(pipeline, folder, stored, record, {})


def _stored(unet_files: list[Path], variant: str | None) -> torch.dtype:
    """The dtype of the UNet's file of this variant."""
    chosen = [path for path in unet_files if (f".{variant}" in path.name) == bool(variant)] or unet_files
    return _dtype(read_header(chosen[0]).dtype)


def _download(request: ImportRequest) -> Path:
    try:
        return Path(
            StableDiffusionXLPipeline.download(
                request.source, revision=request.revision, variant=request.variant, use_safetensors=True
            )
        )
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{request.source}: is neither a file, nor a folder, nor a model found on the hub: {error}"
        ) from error


def _from_single_file(path: Path, request: ImportRequest) -> Source:
    header = read_header(path)
    pipeline_class = _class_of(path, header)
    folder = _config_folder(request, SDXL_REFINER if pipeline_class is StableDiffusionXLImg2ImgPipeline else SDXL_BASE)
    stored = _dtype(header.dtype)
    try:
        pipeline: Any = pipeline_class.from_single_file(
            str(path),
            config=str(folder),
            dtype=_working(request, stored),
            local_files_only=True,
            add_watermarker=False,
        )
    except (ValueError, RuntimeError, KeyError, OSError) as error:
        raise CheckpointError(f"{path}: {_why(error)} (read with the configuration of {folder.name})") from error
    return Source(pipeline, folder, stored, describe(request.source, path), _fields_in(header))


def _class_of(path: Path, header: Header) -> Any:
    if not header.has("conditioner.embedders."):
        raise CheckpointError(f"{path}: {_what_it_is(header)}")
    inputs = header.shapes.get(f"{_UNET_PREFIX}input_blocks.0.0.weight", (0, 4))[1]
    if inputs != 4:
        raise CheckpointError(f"{path}: its UNet takes {inputs} channels, so it is for inpainting or editing, not SDXL")
    if header.has(_BASE_KEY):
        return StableDiffusionXLPipeline
    if header.has(_REFINER_KEY):
        return StableDiffusionXLImg2ImgPipeline
    raise CheckpointError(f"{path}: has the text encoders of neither SDXL nor its refiner")


def _what_it_is(header: Header) -> str:
    if header.has("lora_", ".lora"):
        return "is a LoRA, not a model: name a model, and this with --lora"
    if header.has("cond_stage_model."):
        return "is a Stable Diffusion 1 or 2 checkpoint, not SDXL"
    if header.has("down_blocks.", f"{_UNET_PREFIX}input_blocks."):
        return "is a UNet alone: name the model that it is for, and this with --unet"
    return "has no SDXL text encoders (keys that begin with conditioner.embedders), so it is no SDXL checkpoint"


def _config_folder(request: ImportRequest, default: str) -> Path:
    """The JSON and tokenizers that a single file lacks: of a folder here, or of a hub model (a few megabytes)."""
    name = request.config or default
    folder = Path(name).expanduser()
    if (folder / "model_index.json").is_file():
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=_JSON_ONLY))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(
            "a single file has no configuration and no tokenizers, "
            f"and those of {name} could not be fetched from the hub: name any SDXL model folder with --config ({error})"
        ) from error


def _fields_in(header: Header) -> dict[str, Any]:
    """What a file says of its schedule: `v_pred` and `ztsnr` are empty tensors that trainers leave as marks."""
    fields: dict[str, Any] = {}
    if "v_pred" in header.shapes or header.metadata.get("modelspec.prediction_type") == "v":
        fields["prediction_type"] = "v_prediction"
    if "ztsnr" in header.shapes:
        fields["rescale_betas_zero_snr"] = True
    return fields


def replace_unet(source: Source, name: str, request: ImportRequest) -> dict[str, Any]:
    """Put another UNet into the pipeline; what the record says of it."""
    source.pipeline.unet, record = _part(UNet2DConditionModel, "unet", source, name, request)
    return record


def replace_vae(source: Source, name: str, request: ImportRequest) -> dict[str, Any]:
    """Put another VAE into the pipeline; what the record says of it."""
    source.pipeline.vae, record = _part(AutoencoderKL, "vae", source, name, request)
    return record


def _part(kind: Any, part: str, source: Source, name: str, request: ImportRequest) -> tuple[Any, dict[str, Any]]:
    refuse_pickle(name)
    path, dtype = Path(name).expanduser(), _working(request, source.dtype)
    if path.is_dir() or (path.suffix != ".safetensors" and is_repository(name)):
        return _part_of_folder(kind, part, path if path.is_dir() else None, name, dtype)
    path = find_file(name)
    header = read_header(path)
    old = getattr(source.pipeline, part)
    if header.has(_UNET_PREFIX, "input_blocks.", "encoder.down."):  # the original names, not diffusers'
        model = _from_original_names(kind, part, path, source.folder, dtype)
    else:
        model = _with_weights(kind, _config_for(old.config, header), path).to(dtype)
    return model, describe(name, path)


def _from_original_names(kind: Any, part: str, path: Path, folder: Path, dtype: torch.dtype) -> Any:
    try:
        return kind.from_single_file(str(path), config=str(folder), subfolder=part, dtype=dtype, local_files_only=True)
    except (ValueError, RuntimeError, KeyError, OSError) as error:
        raise CheckpointError(f"{path}: {_why(error)} (read as a {kind.__name__})") from error


def _part_of_folder(
    kind: Any, part: str, folder: Path | None, name: str, dtype: torch.dtype
) -> tuple[Any, dict[str, Any]]:
    """A UNet or VAE of its own repository or folder, or of a whole model's."""
    subfolder = part if folder and (folder / part / "config.json").is_file() else None
    variant = None
    if folder:
        variant = variant_of(weights_of(folder, subfolder or ""))
    try:
        model = kind.from_pretrained(
            str(folder or name),
            subfolder=subfolder,
            variant=variant,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=folder is not None,
        )
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{name}: cannot be loaded as a {kind.__name__}: {error}") from error
    if folder is None:
        return model, {"hub": name}
    files = weights_of(folder, subfolder or "")
    return model, {"folder": folder.resolve().name, "sha256": {path.name: sha256(path) for path in files}}


def _config_for(config: Any, header: Header) -> dict[str, Any]:
    """The old part's configuration; a latent consistency UNet has one more input, the guidance scale."""
    known = {name: value for name, value in config.items() if not name.startswith("_")}
    guidance = header.shapes.get("time_embedding.cond_proj.weight")
    return {**known, **({"time_cond_proj_dim": guidance[1]} if guidance else {})}


def _with_weights(kind: Any, config: dict[str, Any], path: Path) -> Any:
    from safetensors.torch import load_file

    model = kind.from_config(config)
    try:
        model.load_state_dict(load_file(path))
    except RuntimeError as error:
        raise CheckpointError(f"{path}: does not fit the model's {kind.__name__}: {_first_line(error)}") from error
    return model


def check_complete(pipeline: Any) -> None:
    """Raises CheckpointError where a file lacked weights: diffusers leaves such parameters empty and says little."""
    for name, part in pipeline.components.items():
        if isinstance(part, torch.nn.Module):
            missing = [key for key, tensor in part.state_dict().items() if tensor.is_meta]
            if missing:
                shown = ", ".join(missing[:3])
                raise CheckpointError(f"the checkpoint lacks {count(len(missing), 'weight')} of the {name}: {shown}...")


def target_dtype(request: ImportRequest, stored: torch.dtype) -> torch.dtype:
    """What the folder's weights are stored in."""
    return _dtype(request.dtype) if request.dtype else stored


def _working(request: ImportRequest, stored: torch.dtype) -> torch.dtype:
    """LoRAs are added in float32: in half precision what is small against its weight would be lost."""
    return torch.float32 if request.loras else target_dtype(request, stored)


def _dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name)
    assert isinstance(dtype, torch.dtype)
    return torch.float32 if dtype is torch.float64 else dtype


def _why(error: Exception) -> str:
    """diffusers leaves a parameter without weights on PyTorch's meta device and stumbles over it later."""
    return "lacks weights of the model" if "meta tensor" in str(error) else f"diffusers cannot read it: {error}"


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:300]
