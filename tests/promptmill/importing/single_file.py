"""A diffusers folder as one file with the keys of Stability's own code, which A1111 and ComfyUI read too.

The other way round than diffusers' single_file_utils, and without it: what goes there and comes back equal went right.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

UNET, VAE = "model.diffusion_model.", "first_stage_model."
TEXT, TEXT_2 = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."

Tensors = dict[str, np.ndarray]


def write_single_file(folder: Path, path: Path, *, marks: tuple[str, ...] = ()) -> Path:
    """The folder's weights in one file. `marks` are empty tensors, such as `v_pred`."""
    tensors = {name: np.zeros(0, np.float32) for name in marks}
    tensors |= {UNET + key: value for key, value in unet(folder).items()}
    tensors |= {VAE + key: value for key, value in vae(folder).items()}
    has_first = (folder / "text_encoder").is_dir()  # a refiner has the second alone, in the first one's place
    second = TEXT_2 if has_first else TEXT_2.replace(".1.", ".0.")
    tensors |= {second + key: value for key, value in open_clip(read(folder, "text_encoder_2")).items()}
    if has_first:
        tensors |= {TEXT + key: value for key, value in read(folder, "text_encoder").items()}
    save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, path, metadata={"format": "pt"})
    return path


def read(folder: Path, component: str) -> Tensors:
    (path,) = (folder / component).glob("*.safetensors")
    return load_file(path)


def unet(folder: Path) -> Tensors:
    """The UNet under its original names."""
    layers = json.loads((folder / "unet" / "config.json").read_text())["layers_per_block"]
    tensors = read(folder, "unet")
    with_attention = {key.split(".")[1] for key in tensors if re.match(r"up_blocks\.\d+\.attentions", key)}
    return {unet_name(key, layers, with_attention): value for key, value in tensors.items()}


_UNET_PARTS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def unet_name(key: str, layers: int, with_attention: set[str]) -> str:
    """`down_blocks.1.resnets.0.conv1.weight` -> `input_blocks.3.0.in_layers.2.weight`."""
    for ours, theirs in _UNET_PARTS.items():
        if key.startswith(f"{ours}."):
            return _renamed(theirs + key.removeprefix(ours))
    way, block, kind, layer, rest = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", key).groups()  # type: ignore[union-attr]
    first = int(block) * (layers + 1)
    place = {"resnets": 0, "attentions": 1}.get(kind)
    if way == "down":
        at = first + 1 + (layers if place is None else int(layer))
        return _renamed(f"input_blocks.{at}.{place or 0}.{rest.replace('conv.', 'op.') if place is None else rest}")
    at = first + (layers if place is None else int(layer))
    place = (2 if block in with_attention else 1) if place is None else place
    return _renamed(f"output_blocks.{at}.{place}.{rest}")


def _renamed(key: str) -> str:
    """The parts of a resnet; a transformer block calls its norms like diffusers does."""
    if "transformer_blocks" in key:
        return key
    return ".".join(_RESNET.get(part, part) for part in key.split("."))


def vae(folder: Path) -> Tensors:
    """The VAE under its original names; its attention is 1 x 1 convolutions there."""
    return dict(_vae(read(folder, "vae")))


_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def _vae(tensors: Tensors) -> Iterator[tuple[str, np.ndarray]]:
    last = max(int(found[1]) for key in tensors if (found := re.search(r"up_blocks\.(\d+)", key)))
    for key, value in tensors.items():
        name = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", key)
        name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
        name = re.sub(r"up_blocks\.(\d+)\.resnets", lambda found: f"up.{last - int(found[1])}.block", name)
        name = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda found: f"up.{last - int(found[1])}.upsample", name)
        name = re.sub(r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}", name)
        name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        if ".attentions.0." in name:
            for ours, theirs in _ATTENTION.items():
                name = name.replace(f"mid_block.attentions.0.{ours}.", f"mid.attn_1.{theirs}.")
            value = value[:, :, None, None] if value.ndim == 2 else value
        yield name, value


_OPEN_CLIP = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm": "ln_final",
    "text_model.encoder.layers": "transformer.resblocks",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn": "attn",
    "fc1": "c_fc",
    "fc2": "c_proj",
}


def open_clip(tensors: Tensors) -> Tensors:
    """The second text encoder under OpenCLIP's names: q, k and v in one, the projection transposed."""
    found: Tensors = {}
    for key, value in tensors.items():
        name = key
        for ours, theirs in _OPEN_CLIP.items():
            name = name.replace(ours, theirs)
        if name == "text_projection.weight":
            found["text_projection"] = value.T
        elif ".q_proj." in key:
            parts = [tensors[key.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            found[name.replace("q_proj.", "in_proj_")] = np.concatenate(parts)
        elif ".k_proj." not in key and ".v_proj." not in key:
            found[name] = value
    return found
