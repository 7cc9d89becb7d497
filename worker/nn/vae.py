"""The image decoder: the half of diffusers' `AutoencoderKL` that rendering needs, NHWC.

Attribute names are the checkpoint's keys. Layers compute in the dtype of their weights.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from promptmill.worker.nn.attention import attention
from promptmill.worker.nn.blocks import ResnetBlock, Upsample
from promptmill.worker.nn.config import VAEConfig
from promptmill.worker.nn.layers import Conv, GroupNorm, Linear

# diffusers' constant for every norm of the autoencoder; no configuration field.
NORM_EPS = 1e-6
# Weights that stay in float32 in a decoder of bfloat16, by how their keys begin: the first and the last layers, which
# are a thousandth of its operations and 9 to 37% of its error (docs/fidelity.md).
IN_FLOAT32 = ("post_quant_conv.", "decoder.conv_in.", "decoder.conv_norm_out.", "decoder.conv_out.")


class PixelAttention(nnx.Module):
    """Self-attention of one head over all pixels, around a residual."""

    def __init__(self, width: int, *, groups: int) -> None:
        self.group_norm = GroupNorm(width, groups=groups, eps=NORM_EPS)
        self.to_qkv = Linear(width, 3 * width)
        self.to_out = nnx.List([Linear(width, width)])

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        batch, height, width, channels = x.shape
        # B H W C -> B (H W) 1 C: one head
        h = self.group_norm(x).reshape(batch, height * width, 1, channels)
        out = attention(*jnp.split(self.to_qkv(h), 3, axis=-1))
        return x + self.to_out[0](out).reshape(x.shape)


class MidBlock(nnx.Module):
    def __init__(self, width: int, *, groups: int, attends: bool) -> None:
        self.resnets = nnx.List([ResnetBlock(width, width, groups=groups, eps=NORM_EPS) for _ in range(2)])
        self.attentions = nnx.List([PixelAttention(width, groups=groups)]) if attends else None

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        x = self.resnets[0](x)
        if self.attentions is not None:
            x = self.attentions[0](x)
        return self.resnets[1](x)


class UpBlock(nnx.Module):
    def __init__(self, inputs: int, outputs: int, *, layers: int, groups: int, last: bool) -> None:
        widths = [inputs] + [outputs] * (layers - 1)
        self.resnets = nnx.List([ResnetBlock(width, outputs, groups=groups, eps=NORM_EPS) for width in widths])
        self.upsamplers = None if last else nnx.List([Upsample(outputs)])

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 O"]:
        for resnet in self.resnets:
            x = resnet(x)
        return x if self.upsamplers is None else self.upsamplers[0](x)


class Decoder(nnx.Module):
    def __init__(self, config: VAEConfig) -> None:
        groups = config.norm_num_groups
        widths = config.block_out_channels[::-1]
        self.conv_in = Conv(config.latent_channels, widths[0])
        self.mid_block = MidBlock(widths[0], groups=groups, attends=config.mid_block_add_attention)
        self.up_blocks = nnx.List(
            [
                UpBlock(
                    widths[max(index - 1, 0)],
                    width,
                    layers=config.layers_per_block + 1,
                    groups=groups,
                    last=index == len(widths) - 1,
                )
                for index, width in enumerate(widths)
            ]
        )
        self.conv_norm_out = GroupNorm(widths[-1], groups=groups, eps=NORM_EPS)
        self.conv_out = Conv(widths[-1], config.out_channels)

    def __call__(self, latents: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
        x = self.mid_block(self.conv_in(latents).astype(self.mid_block.resnets[0].conv1.dtype))
        for up in self.up_blocks:
            x = up(x)
        return self.conv_out(self.conv_norm_out.silu(x.astype(self.conv_out.dtype)))


class VAE(nnx.Module):
    """Latents as the sampler leaves them, to an image in about [-1, 1]."""

    def __init__(self, config: VAEConfig) -> None:
        if config.use_post_quant_conv:
            self.post_quant_conv = Conv(config.latent_channels, config.latent_channels, size=1)
        self.decoder = Decoder(config)
        self.config = config

    def __call__(self, latents: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
        x = self._unscale(latents)
        if self.config.use_post_quant_conv:
            x = self.post_quant_conv(x)
        return self.decoder(x)

    def _unscale(self, latents: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        config = self.config
        if config.latents_mean is None or config.latents_std is None:
            return latents / config.scaling_factor
        mean = jnp.asarray(config.latents_mean, latents.dtype).reshape(1, 1, 1, -1)
        std = jnp.asarray(config.latents_std, latents.dtype).reshape(1, 1, 1, -1)
        return latents * std / config.scaling_factor + mean
