"""LoRA files as PyTorch's tools make them, and what they do to a weight, in numpy."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from diffusers.training_utils import _collate_lora_metadata
from diffusers.utils import convert_state_dict_to_diffusers
from safetensors.numpy import load_file, save_file

from tests.promptmill.importing.single_file import unet_name

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
PARTS = ("unet", "text_encoder", "text_encoder_2")

Deltas = dict[str, dict[str, np.ndarray]]


def write_diffusers_lora(model: Path, folder: Path, *, seed: int, unet_targets: list[str]) -> tuple[Path, Deltas]:
    """A LoRA made by peft and saved by diffusers, as its training scripts do; and what it adds, by part and key."""
    pytest.importorskip("peft")
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    pipeline: Any = StableDiffusionXLPipeline.from_pretrained(model, local_files_only=True)
    torch.manual_seed(seed)
    config = LoraConfig(r=4, lora_alpha=6, target_modules=unet_targets, init_lora_weights=False)
    text = LoraConfig(r=2, lora_alpha=3, target_modules=["q_proj", "v_proj", "fc1"], init_lora_weights=False)
    deltas: Deltas = {}
    layers = {}
    for part, settings in zip(PARTS, (config, text, text), strict=True):
        network = getattr(pipeline, part)
        network.add_adapter(settings)
        state = get_peft_model_state_dict(network)
        deltas[part] = _deltas({key: value.numpy() for key, value in state.items()}, settings.lora_alpha / settings.r)
        layers[f"{part}_lora_layers"] = convert_state_dict_to_diffusers(state)
    metadata = _collate_lora_metadata({part: getattr(pipeline, part) for part in PARTS})
    StableDiffusionXLPipeline.save_lora_weights(folder, **layers, **metadata)
    return folder / "pytorch_lora_weights.safetensors", deltas


def _deltas(state: dict[str, np.ndarray], scale: float) -> dict[str, np.ndarray]:
    """By the name of the weight: scale * B A. Text encoders' are named as in checkpoints."""
    found = {}
    for key, down in state.items():
        if ".lora_A." in key:
            name = key.replace(".lora_A.weight", ".weight")
            named = f"text_model.{name}" if name.startswith("encoder.") else name
            found[named] = scale * product(down, state[key.replace("lora_A", "lora_B")])
    return found


def product(down: np.ndarray, up: np.ndarray) -> np.ndarray:
    """B A, also where both are convolutions: the one of B is 1 x 1."""
    flat = up.reshape(up.shape[0], -1) @ down.reshape(down.shape[0], -1)
    return flat.reshape(up.shape[0], *down.shape[1:])


def write_kohya_lora(model: Path, path: Path, *, seed: int) -> tuple[Path, Deltas]:
    """A LoRA as kohya's sd-scripts name them, over the original block names, with ranks and alphas of many kinds."""
    draw = np.random.default_rng(seed)
    tensors: dict[str, np.ndarray] = {}
    deltas: Deltas = {part: {} for part in PARTS}
    for part, key, name in _kohya_names(model):
        (file,) = (model / part).glob("*.safetensors")
        shape = load_file(file)[key].shape
        rank, alpha = int(draw.integers(1, 5)), float(draw.choice([1.0, 2.5, 4.0]))
        down = draw.standard_normal((rank, *shape[1:])).astype(np.float32)
        up = draw.standard_normal((shape[0], rank, *[1] * (len(shape) - 2))).astype(np.float32)
        tensors |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
        tensors[f"{name}.alpha"] = np.array(alpha, np.float32)
        deltas[part][key] = alpha / rank * product(down, up)
    save_file(tensors, path, metadata={"ss_network_module": "networks.lora"})
    return path, deltas


def _kohya_names(model: Path) -> list[tuple[str, str, str]]:
    """Part, key of the weight, and kohya's name of the layer."""
    layers = json.loads((model / "unet" / "config.json").read_text())["layers_per_block"]
    (file,) = (model / "unet").glob("*.safetensors")
    found = []
    for key in load_file(file):
        if key.endswith(("to_q.weight", "to_out.0.weight", "ff.net.2.weight", "proj_in.weight", "conv1.weight")):
            original = unet_name(key, layers, set("01")).removesuffix(".weight")
            found.append(("unet", key, "lora_unet_" + original.replace(".", "_")))
    for part, prefix in (("text_encoder", "lora_te1_"), ("text_encoder_2", "lora_te2_")):
        for layer in range(2):
            for module in ("self_attn.k_proj", "self_attn.out_proj", "mlp.fc2"):
                name = f"text_model.encoder.layers.{layer}.{module}"
                found.append((part, f"{name}.weight", prefix + name.replace(".", "_")))
    return found
