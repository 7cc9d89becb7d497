"""The networks of a model, by the names of their folders in a diffusers checkpoint."""

from collections.abc import Callable
from functools import partial

from flax import nnx

from promptmill.worker.nn.quantize import quantize
from promptmill.worker.nn.vae import VAE
from promptmill.worker.quantization import UNQUANTIZED
from promptmill.worker.sdxl.config import ModelConfig, UNetConfig
from promptmill.worker.sdxl.unet import UNet
from promptmill.worker.text.clip import CLIPText

NOT_QUANTIZED = ("conv_in", "conv_out", "time_embedding", "add_embedding", "time_emb_proj")
"""Layers of a UNet that are never quantised: they take in what all others work on, and are a hundredth of it."""


def builders(config: ModelConfig, quantized: str = UNQUANTIZED) -> dict[str, Callable[[], nnx.Module]]:
    """What builds each network; call them under `nnx.eval_shape`, where they cost no memory."""
    networks: dict[str, Callable[[], nnx.Module]] = {
        "text_encoder_2": partial(CLIPText, config.text_encoder_2, projection=True),
        "unet": partial(build_unet, config.unet, quantized),
        "vae": partial(VAE, config.vae),
    }
    if config.text_encoder is not None:
        networks["text_encoder"] = partial(CLIPText, config.text_encoder, projection=False)
    return networks


def build_unet(config: UNetConfig, quantized: str) -> UNet:
    """The UNet, with its large kernels in this format of worker/quantization.py."""
    unet = UNet(config)
    if quantized != UNQUANTIZED:
        quantize(unet, quantized, kept=NOT_QUANTIZED)
    return unet
