"""A full-size SDXL with random weights in float16, as a diffusers folder: 7 GB, for all that needs no images.

    python -m benchmarks.random_sdxl FOLDER [--shards N] [--seed S] [--tiny]

Loading, memory, speed and agreement with PyTorch do not depend on what the weights are, as long as signals stay of
ordinary size. Configurations are those of stabilityai/stable-diffusion-xl-base-1.0; weights have PyTorch's default
initialisation, norms a little noise besides, so that none can be left out unseen. The tokenizers are the tiny
model's, whose ids the real embedding tables hold as well. `--tiny` writes the tiny model in the same way.
"""

import argparse
import json
import math
import shutil
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from promptmill.worker.checkpoint.weights import Parameter
from promptmill.worker.sdxl.config import ModelConfig
from promptmill.worker.sdxl.tiny import CONFIGS, checkpoint_parameters
from promptmill.worker.text.tiny_tokenizer import write_tokenizer

SDXL_BASE: dict[str, dict[str, Any]] = {
    "text_encoder/config.json": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "projection_dim": 768,
        "vocab_size": 49408,
    },
    "text_encoder_2/config.json": {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_attention_heads": 20,
        "num_hidden_layers": 32,
        "projection_dim": 1280,
        "vocab_size": 49408,
    },
    "unet/config.json": {
        "addition_time_embed_dim": 256,
        "attention_head_dim": [5, 10, 20],
        "block_out_channels": [320, 640, 1280],
        "cross_attention_dim": 2048,
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "projection_class_embeddings_input_dim": 2816,
        "sample_size": 128,
        "transformer_layers_per_block": [1, 2, 10],
    },
    "vae/config.json": {
        "block_out_channels": [128, 256, 512, 512],
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "sample_size": 1024,
    },
}
MID: dict[str, dict[str, Any]] = {
    "text_encoder/config.json": {
        "hidden_size": 256,
        "intermediate_size": 1024,
        "num_attention_heads": 4,
        "num_hidden_layers": 6,
        "projection_dim": 256,
    },
    "text_encoder_2/config.json": {
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_attention_heads": 8,
        "num_hidden_layers": 8,
        "projection_dim": 512,
    },
    "unet/config.json": {
        "addition_time_embed_dim": 64,
        "attention_head_dim": [2, 4, 8],
        "block_out_channels": [128, 256, 512],
        "cross_attention_dim": 768,
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "projection_class_embeddings_input_dim": 6 * 64 + 512,
        "sample_size": 32,
        "transformer_layers_per_block": [1, 2, 4],
    },
    "vae/config.json": {
        "block_out_channels": [64, 128, 256, 256],
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "sample_size": 256,
    },
}
"""SDXL's layout at two fifths of its width and depth: for whole images on a CPU."""
SIZES: dict[str, dict[str, dict[str, Any]]] = {"full": SDXL_BASE, "mid": MID, "tiny": {}}
BASENAMES = {"text_encoder": "model", "text_encoder_2": "model"}
UNET_BASENAME = "diffusion_pytorch_model"
# A token's embedding is small in CLIP: 0.02 in its own initialisation.
EMBEDDING_DEVIATION = 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shards", type=int, default=1, help="files of the UNet; more than one come with an index")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    write_random_sdxl(options.folder, shards=options.shards, seed=options.seed, tiny=options.tiny)


def write_random_sdxl(folder: Path, *, shards: int = 1, seed: int = 0, tiny: bool = False, size: str = "full") -> Path:
    """Write `folder` unless it is there; what was begun lies beside it under another name until it is whole."""
    if folder.exists():
        return folder
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    changes = SIZES["tiny" if tiny else size]
    write_plain_files(unfinished, changes)
    for component, wanted in checkpoint_parameters(ModelConfig.from_folder(unfinished)).items():
        print(f"{component}: {sum(math.prod(wish.shape) for wish in wanted):,} weights", file=sys.stderr)
        _write_component(unfinished / component, wanted, seed, shards if component == "unet" else 1)
    unfinished.rename(folder)
    return folder


def write_plain_files(folder: Path, changes: dict[str, dict[str, Any]]) -> None:
    """All of a checkpoint but its weights."""
    vocab_size = write_tokenizer(folder / "tokenizer", pad_token="<|endoftext|>")
    write_tokenizer(folder / "tokenizer_2", pad_token="!")
    for name, values in CONFIGS.items():
        (folder / name).parent.mkdir(exist_ok=True)
        sized = {"vocab_size": vocab_size} if name.startswith("text_encoder") else {}
        (folder / name).write_text(json.dumps({**values, **sized, **changes.get(name, {})}, indent=2) + "\n")


def _write_component(folder: Path, wanted: list[Parameter], seed: int, shards: int) -> None:
    basename = BASENAMES.get(folder.name, UNET_BASENAME)
    if shards == 1:
        _write_safetensors(folder / f"{basename}.safetensors", wanted, seed)
        return
    weight_map: dict[str, str] = {}
    for number in range(shards):
        name = f"{basename}-{number + 1:05}-of-{shards:05}.safetensors"
        part = wanted[number::shards]
        _write_safetensors(folder / name, part, seed)
        weight_map |= {wish.key: name for wish in part}
    index = {"metadata": {"total_size": 2 * sum(math.prod(wish.shape) for wish in wanted)}, "weight_map": weight_map}
    (folder / f"{basename}.safetensors.index.json").write_text(json.dumps(index, indent=2))


def _write_safetensors(path: Path, wanted: list[Parameter], seed: int) -> None:
    """One file, tensor by tensor: the library's writer would hold all of it, twice."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for wish in wanted:
        start, end = end, end + 2 * math.prod(wish.shape)
        header[wish.key] = {"dtype": "F16", "shape": list(wish.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as stream, ThreadPoolExecutor() as threads:
        stream.write(len(text).to_bytes(8, "little") + text)
        for values in _drawn(threads, path.parent.name, wanted, seed):
            stream.write(values.tobytes())


def _drawn(threads: ThreadPoolExecutor, component: str, wanted: list[Parameter], seed: int) -> Iterator[np.ndarray]:
    """Values in order, a few tensors at a time in memory."""
    remaining = iter(wanted)
    while some := list(islice(remaining, 16)):
        yield from threads.map(lambda wish: random_values(component, wish, seed), some)


def random_values(component: str, wanted: Parameter, seed: int) -> np.ndarray:
    """Values by PyTorch's default initialisation of each kind of layer; each key has its own generator."""
    draw = np.random.Generator(np.random.SFC64([seed, zlib.crc32(f"{component}/{wanted.key}".encode())]))
    values = draw.random(wanted.shape, np.float32)  # 0 to 1
    match wanted.path[-1]:
        case "kernel":  # uniform within 1 / sqrt(inputs), as nn.Linear and nn.Conv2d draw
            values = (2 * values - 1) * np.float32(1 / math.sqrt(math.prod(wanted.shape[1:])))
        case "scale":
            values = 1 + np.float32(0.1) * (2 * values - 1)
        case "bias":
            values = np.float32(0.03) * (2 * values - 1)
        case _:
            values = np.float32(EMBEDDING_DEVIATION * math.sqrt(12)) * (values - np.float32(0.5))
    return values.astype(np.float16)


if __name__ == "__main__":
    main()
