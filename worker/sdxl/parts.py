"""The networks of a model, by the names of their folders in a diffusers checkpoint."""

from collections.abc import Callable
from functools import partial

from flax import nnx

from promptmill.worker.nn.vae import VAE
from promptmill.worker.sdxl.config import ModelConfig
from promptmill.worker.sdxl.unet import UNet
from promptmill.worker.text.clip import CLIPText


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
