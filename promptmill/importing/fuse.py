"""LoRAs into the weights: W + weight * (alpha / rank) * B A (Hu et al. 2021, arXiv 2106.09685).

diffusers translates the names of every trainer (`lora_state_dict`); the sum is ours, because diffusers 0.42 with peft
0.21 misreads alphas that differ from layer to layer, and files that spell `.lora.down` and `.lora_A` side by side.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.utils.state_dict_utils import (
    convert_state_dict_to_diffusers,
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
)

from promptmill.importing.errors import CheckpointError
from promptmill.importing.files import Header, describe, find_file, read_header
from promptmill.importing.request import Lora

_DOWN = ("lora_down.weight", "lora_A.weight", "lora.down.weight", "_layer.down.weight", "_lora.down.weight")
# Relatives of LoRA, whose arithmetic is another.
_OTHERS = {
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "hada_w": "LoHa",
    "lokr_w": "LoKr",
    "lora_mid": "a LoRA with decomposed convolutions",
    "oft_": "OFT",
    ".diff": "a LoRA with whole weight differences",
}
_PARTS = ("unet", "text_encoder", "text_encoder_2")


@dataclass(frozen=True)
class _Layer:
    """One layer's share: the part of the pipeline, the module's name in it, B, A and alpha / rank."""

    part: str
    module: str
    up: torch.Tensor
    down: torch.Tensor
    scale: float


def fuse_lora(pipeline: Any, lora: Lora) -> dict[str, Any]:
    """Add one LoRA to the pipeline's weights; what the record says of it. CheckpointError leaves them as they are."""
    path = find_file(lora.file)
    header = read_header(path)
    _check_kind(lora.file, header)
    try:
        state, alphas, metadata = pipeline.lora_state_dict(
            str(path.parent),
            weight_name=path.name,
            unet_config=pipeline.unet.config,
            use_safetensors=True,
            local_files_only=True,
            return_lora_metadata=True,
        )
        layers = list(_layers(state, alphas or {}, metadata or {}))
        parameters = {part: _parameters(getattr(pipeline, part, None)) for part in _PARTS}
        weights = [_weight_of(parameters, layer) for layer in layers]
    except (ValueError, RuntimeError, KeyError, IndexError) as error:
        raise CheckpointError(f"{lora.file}: diffusers cannot read it: {error}") from error
    _check_all_used(lora.file, header, layers, weights)
    for layer, weight in zip(layers, weights, strict=True):
        assert weight is not None
        weight += lora.weight * layer.scale * _product(layer).reshape(weight.shape).to(weight.dtype)
    return {**describe(lora.file, path), "weight": lora.weight}


def _check_kind(name: str, header: Header) -> None:
    for part, kind in _OTHERS.items():
        if header.has(part):
            raise CheckpointError(f"{name}: is {kind}; plain LoRAs can be fused, those on convolutions included")
    if not header.has(*_DOWN):
        raise CheckpointError(f"{name}: has no LoRA weights in it")


def _layers(
    state: Mapping[str, torch.Tensor], alphas: Mapping[str, float], metadata: Mapping[str, Any]
) -> Iterator[_Layer]:
    """Every pair of matrices, under the names of the pipeline's own modules."""
    for part in _PARTS:
        tensors = _as_peft(part, state)
        own_alphas = _as_peft(part, {_of_alpha(key): value for key, value in alphas.items()})
        for key, down in tensors.items():
            if not key.endswith(".lora_A.weight"):
                continue
            module = key.removesuffix(".lora_A.weight")
            up, rank = tensors[f"{module}.lora_B.weight"], down.shape[0]
            alpha = own_alphas.get(key)
            scale = alpha / rank if alpha is not None else _scale(part, module, rank, metadata)
            yield _Layer(part, module, up.float(), down.float(), scale)


def _of_alpha(key: str) -> str:
    """The matrix that an alpha is for: diffusers names some by it and some by the module alone."""
    key = key.removesuffix(".alpha")
    return key if key.endswith("down.weight") else f"{key}.lora.down.weight"


def _as_peft(part: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The part's entries, all spelled `module.lora_A.weight`."""
    own = {key.removeprefix(f"{part}."): value for key, value in values.items() if key.startswith(f"{part}.")}
    if part == "unet":
        return dict(convert_unet_state_dict_to_peft(own))
    return dict(convert_state_dict_to_peft(convert_state_dict_to_diffusers(own))) if own else {}


def _scale(part: str, module: str, rank: int, metadata: Mapping[str, Any]) -> float:
    """Of a file without alphas: what the settings in its header say (peft's LoraConfig), or 1."""
    alpha = metadata.get(f"{part}.lora_alpha", rank)
    for pattern, value in (metadata.get(f"{part}.alpha_pattern") or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", module):
            alpha = value
    return float(alpha / (math.sqrt(rank) if metadata.get(f"{part}.use_rslora") else rank))


def _parameters(network: Any) -> dict[str, torch.Tensor]:
    """A network's parameters, text encoders' without the `text_model.` that transformers 5.6 took out of one class."""
    return {key.removeprefix("text_model."): value for key, value in network.named_parameters()} if network else {}


def _weight_of(parameters: Mapping[str, Mapping[str, torch.Tensor]], layer: _Layer) -> torch.Tensor | None:
    """The parameter that the layer is added to; None where there is no such module, or one of another shape."""
    weight = parameters[layer.part].get(f"{layer.module.removeprefix('text_model.')}.weight")
    if weight is None or weight.numel() != layer.up.shape[0] * layer.down[0].numel():
        return None
    return weight


def _product(layer: _Layer) -> torch.Tensor:
    """B A, also where both are convolutions: that of B is 1 x 1."""
    return layer.up.flatten(1) @ layer.down.flatten(1)


def _check_all_used(file: str, header: Header, layers: list[_Layer], weights: list[torch.Tensor | None]) -> None:
    """A LoRA of another model must not pass for a fused one, nor half of one."""
    expected = sum(key.endswith(_DOWN) for key in header.shapes)
    used = sum(weight is not None for weight in weights)
    if used != expected or len(layers) != expected:
        raise CheckpointError(
            f"{file}: {expected - used} of its {expected} layers are not in this model: is it a LoRA for SDXL?"
        )
