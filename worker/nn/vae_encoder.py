"""The image encoder: the other half of diffusers' `AutoencoderKL`, NHWC. Rendering from text does without it.

Attribute names are the checkpoint's keys, so that decoder and encoder are read from one file.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from promptmill.worker.nn.blocks import Downsample, ResnetBlock
from promptmill.worker.nn.config import VAEConfig
from promptmill.worker.nn.layers import Conv, GroupNorm
from promptmill.worker.nn.vae import NORM_EPS, MidBlock

# diffusers' `DiagonalGaussianDistribution` clips the logarithm of the variance so.
_LOG_VARIANCE_RANGE = (-30.0, 20.0)


class EncoderDownsample(nnx.Module):
    """Half the size; unlike the UNet's, padded below and on the right only."""

    def __init__(self, width: int) -> None:
        self.conv = Downsample(width).conv

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 C"]:
        y = jax.lax.conv_general_dilated(
            x,
            self.conv.kernel[...],
            window_strides=(2, 2),
            padding=((0, 1), (0, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y + self.conv.bias[...].reshape(1, 1, 1, -1)


class DownBlock(nnx.Module):
    def __init__(self, inputs: int, outputs: int, *, layers: int, groups: int, last: bool) -> None:
        widths = [inputs] + [outputs] * (layers - 1)
        self.resnets = nnx.List([ResnetBlock(width, outputs, groups=groups, eps=NORM_EPS) for width in widths])
        self.downsamplers = None if last else nnx.List([EncoderDownsample(outputs)])

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 O"]:
        for resnet in self.resnets:
            x = resnet(x)
        return x if self.downsamplers is None else self.downsamplers[0](x)


class Encoder(nnx.Module):
    def __init__(self, config: VAEConfig) -> None:
        groups = config.norm_num_groups
        widths = config.block_out_channels
        self.conv_in = Conv(config.out_channels, widths[0])
        self.down_blocks = nnx.List(
            [
                DownBlock(
                    widths[max(index - 1, 0)],
                    width,
                    layers=config.layers_per_block,
                    groups=groups,
                    last=index == len(widths) - 1,
                )
                for index, width in enumerate(widths)
            ]
        )
        self.mid_block = MidBlock(widths[-1], groups=groups, attends=config.mid_block_add_attention)
        self.conv_norm_out = GroupNorm(widths[-1], groups=groups, eps=NORM_EPS)
        self.conv_out = Conv(widths[-1], 2 * config.latent_channels)

    def __call__(self, image: Float[Array, "B H W 3"]) -> Float[Array, "B h w C2"]:
        x = self.conv_in(image)
        for down in self.down_blocks:
            x = down(x)
        return self.conv_out(jax.nn.silu(self.conv_norm_out(self.mid_block(x))))


class VAEEncoder(nnx.Module):
    """An image in [-1, 1], to the mean and the log variance of its latents, before any scaling."""

    def __init__(self, config: VAEConfig) -> None:
        self.encoder = Encoder(config)
        self.quant_conv = Conv(2 * config.latent_channels, 2 * config.latent_channels, size=1)

    def __call__(self, image: Float[Array, "B H W 3"]) -> tuple[Float[Array, "B h w C"], Float[Array, "B h w C"]]:
        mean, log_variance = jnp.split(self.quant_conv(self.encoder(image)), 2, axis=-1)
        return mean, jnp.clip(log_variance, *_LOG_VARIANCE_RANGE)
