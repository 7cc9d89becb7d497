"""From a training checkpoint to a diffusers folder of float16 safetensors, which both PyTorch and the worker load."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from safetensors.numpy import save_file

from promptmill.worker.checkpoint.weights import Parameter, parameters
from tools.pocket.nets import Weights, network_builders, write_configs
from tools.pocket.tokenizer import write_tokenizers
from tools.pocket.training import load

DEFAULT_FOLDER = Path(__file__).parents[2] / "worker" / "models" / "pocket"
_FILES = {
    "text_encoder": "model.safetensors",
    "text_encoder_2": "model.safetensors",
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="the folder that was trained in")
    parser.add_argument("--output", type=Path, default=DEFAULT_FOLDER)
    parser.add_argument("--last", action="store_true", help="the last weights, not their moving average")
    options = parser.parse_args()
    vae = load(options.work / "vae-normalised.pickle")
    trained = load(options.work / "model.pickle")
    export(options.output, {**trained["weights" if options.last else "ema"], **vae})
    size = sum(file.stat().st_size for file in options.output.rglob("*.safetensors"))
    print(f"{options.output}: step {trained['step']}, {size / 1e6:.2f} MB of weights")


def export(folder: Path, weights: dict[str, Weights], *, dtype: Any = np.float16) -> None:
    """Write the whole folder: configurations, tokenizers and weights, the autoencoder's two halves in one file."""
    builders = network_builders(write_configs(folder, write_tokenizers(folder)))
    for name, file in _FILES.items():
        tensors = to_checkpoint(builders[name], weights[name])
        if name == "vae":
            tensors |= to_checkpoint(builders["vae_encoder"], weights["vae_encoder"])
        cast = {key: np.ascontiguousarray(tensor, dtype) for key, tensor in tensors.items()}
        save_file(cast, folder / name / file, metadata={"format": "pt"})


def to_checkpoint(build: Callable[[], nnx.Module], weights: Weights) -> dict[str, np.ndarray]:
    """Each weight under its checkpoint's key and in its layout: what worker/checkpoint/weights.py does, backwards."""
    wanted = parameters(nnx.state(nnx.eval_shape(build)))
    return {parameter.key: _to_their_layout(parameter, np.asarray(weights[parameter.path])) for parameter in wanted}


def _to_their_layout(parameter: Parameter, array: np.ndarray) -> np.ndarray:
    array = np.split(array, parameter.parts, axis=-1)[parameter.part]
    if parameter.path[-1] != "kernel":
        return array
    return array.transpose((1, 0) if array.ndim == 2 else (3, 2, 0, 1))


if __name__ == "__main__":
    main()
