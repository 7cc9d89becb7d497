"""The networks of a model, by the names of their folders in a diffusers checkpoint."""

from collections.abc import Callable
from functools import partial

from flax import nnx

from worker.sdxl.clip import CLIPText
from worker.sdxl.config import ModelConfig
from worker.sdxl.unet import UNet
from worker.sdxl.vae import VAE


def builders(config: ModelConfig) -> dict[str, Callable[[], nnx.Module]]:
    """What builds each network; call them under `nnx.eval_shape`, where they cost no memory."""
    networks: dict[str, Callable[[], nnx.Module]] = {
        "text_encoder_2": partial(CLIPText, config.text_encoder_2, projection=True),
        "unet": partial(UNet, config.unet),
        "vae": partial(VAE, config.vae),
    }
    if config.text_encoder is not None:
        networks["text_encoder"] = partial(CLIPText, config.text_encoder, projection=False)
    return networks
