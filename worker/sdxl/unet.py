"""The denoiser: diffusers' `UNet2DConditionModel` with SDXL's `text_time` conditioning, NHWC.

Attribute names are the checkpoint's keys.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Float32, Int

from promptmill.worker.nn.blocks import Downsample, ResnetBlock, Upsample
from promptmill.worker.nn.layers import Conv, GroupNorm, Linear
from promptmill.worker.nn.transformer import KeysValues, Transformer2D
from promptmill.worker.sdxl.config import UNetConfig

# Angles are thousands of radians, so that a last bit of a frequency is a fourth digit of its sine. Frequencies are
# therefore made on the host, each rounding where PyTorch rounds; compiled by XLA they were up to 15 last bits away.
_LOG_PERIOD = np.float32(math.log(10_000))


LevelText = list[list[KeysValues]]
"""The text's keys and values for one level of the UNet: of each attention, of each of its blocks."""


class Conditioning(NamedTuple):
    """All that the UNet makes of its conditioning and that no step changes: computed once per image."""

    down: list[LevelText]
    mid: LevelText
    up: list[LevelText]
    added: Float[Array, "B T"]
    """The embedding of the pooled text and of the micro-conditioning."""
    guidance: Float[Array, "B I"] | None
    """The embedded scale of a guidance-distilled model."""


class TimestepEmbedding(nnx.Module):
    def __init__(self, inputs: int, width: int, *, condition: int | None = None) -> None:
        self.linear_1 = Linear(inputs, width)
        self.cond_proj = Linear(condition, inputs, bias=False) if condition else None
        self.linear_2 = Linear(width, width)

    def __call__(self, x: Float[Array, "B I"], added: Float[Array, "B I"] | None = None) -> Float[Array, "B T"]:
        return self.linear_2(jax.nn.silu(self.linear_1(x if added is None else x + added)))


class _Level(nnx.Module):
    """What one level of the UNet has, going down or up: resnets, each perhaps with attention to the text."""

    def __init__(self, config: UNetConfig, level: int, widths: list[int], *, attends: bool) -> None:
        width = config.block_out_channels[level]
        self.resnets = nnx.List([_resnet(config, inputs, width) for inputs in widths])
        self.attentions = nnx.List([_transformer(config, level) for _ in widths]) if attends else None

    def keys_values(self, context: Float[Array, "B K D"], lengths: Int[Array, " B"] | None) -> LevelText:
        return [attention.keys_values(context, lengths) for attention in self.attentions or ()]

    def layer(
        self, index: int, x: Float[Array, "B H W C"], time: Float[Array, "B T"], text: LevelText
    ) -> Float[Array, "B H W O"]:
        x = self.resnets[index](x, time)
        return x if self.attentions is None else self.attentions[index](x, text[index])


class DownBlock(_Level):
    def __init__(self, config: UNetConfig, level: int) -> None:
        width = config.block_out_channels[level]
        before = config.block_out_channels[max(level - 1, 0)]
        widths = [before] + [width] * (config.layers[level] - 1)
        super().__init__(config, level, widths, attends=config.down_block_types[level] == "CrossAttnDownBlock2D")
        last = level == config.levels - 1
        self.downsamplers = None if last else nnx.List([Downsample(width)])

    def __call__(
        self, x: Float[Array, "B H W C"], time: Float[Array, "B T"], text: LevelText
    ) -> list[Float[Array, "B _ _ O"]]:
        """Every output on the way; the up block of this level takes them back, the last is passed on."""
        outputs = []
        for index in range(len(self.resnets)):
            x = self.layer(index, x, time, text)
            outputs.append(x)
        if self.downsamplers is not None:
            outputs.append(self.downsamplers[0](x))
        return outputs


class MidBlock(nnx.Module):
    def __init__(self, config: UNetConfig) -> None:
        width = config.block_out_channels[-1]
        self.resnets = nnx.List([_resnet(config, width, width) for _ in range(2)])
        self.attentions = nnx.List([_transformer(config, config.levels - 1)])

    def keys_values(self, context: Float[Array, "B K D"], lengths: Int[Array, " B"] | None) -> LevelText:
        return [self.attentions[0].keys_values(context, lengths)]

    def __call__(
        self, x: Float[Array, "B H W C"], time: Float[Array, "B T"], text: LevelText
    ) -> Float[Array, "B H W C"]:
        x = self.resnets[0](x, time)
        x = self.attentions[0](x, text[0])
        return self.resnets[1](x, time)


class UpBlock(_Level):
    """`place` counts the up blocks; `level` the widths, which they run through backwards."""

    def __init__(self, config: UNetConfig, place: int) -> None:
        level = config.levels - 1 - place
        channels = config.block_out_channels
        width, below, above = (
            channels[level],
            channels[min(level + 1, config.levels - 1)],
            channels[max(level - 1, 0)],
        )
        count = config.layers[level] + 1
        skips = [width] * (count - 1) + [above]
        widths = [(below if index == 0 else width) + skip for index, skip in enumerate(skips)]
        super().__init__(config, level, widths, attends=config.up_block_types[place] == "CrossAttnUpBlock2D")
        self.upsamplers = None if level == 0 else nnx.List([Upsample(width)])

    def __call__(
        self,
        x: Float[Array, "B H W C"],
        skips: list[Float[Array, "B _ _ _"]],
        time: Float[Array, "B T"],
        text: LevelText,
    ) -> Float[Array, "B H2 W2 O"]:
        """Takes its skips off the end of `skips`; the next one left says to which size it upsamples."""
        for index in range(len(self.resnets)):
            x = self.join(index, x, skips.pop(), time, text)
        if self.upsamplers is not None:
            x = self.upsamplers[0](x, size=skips[-1].shape[1:3])
        return x

    def join(
        self,
        index: int,
        x: Float[Array, "B H W C"],
        skip: Float[Array, "B H W S"],
        time: Float[Array, "B T"],
        text: LevelText,
    ) -> Float[Array, "B H W O"]:
        """One layer, which takes a skip beside what comes from the layer before."""
        return self.layer(index, jnp.concatenate([x, skip], axis=-1), time, text)


class UNet(nnx.Module):
    def __init__(self, config: UNetConfig) -> None:
        first = config.block_out_channels[0]
        added = config.projection_class_embeddings_input_dim
        assert added is not None  # UNetConfig has checked it
        self.conv_in = Conv(config.in_channels, first)
        self.time_embedding = TimestepEmbedding(first, 4 * first, condition=config.time_cond_proj_dim)
        self.add_embedding = TimestepEmbedding(added, 4 * first)
        self.down_blocks = nnx.List([DownBlock(config, level) for level in range(config.levels)])
        self.mid_block = MidBlock(config)
        self.up_blocks = nnx.List([UpBlock(config, place) for place in range(config.levels)])
        self.conv_norm_out = GroupNorm(first, groups=config.norm_num_groups, eps=config.norm_eps)
        self.conv_out = Conv(first, config.out_channels)
        self.config = config

    def __call__(
        self,
        latents: Float[Array, "B H W C"],
        timestep: Float[Array, " B"],
        context: Float[Array, "B L D"],
        pooled: Float[Array, "B P"],
        time_ids: Float[Array, "B I"],
        guidance: Float[Array, " B"] | None = None,
        context_lengths: Int[Array, " B"] | None = None,
    ) -> Float[Array, "B H W C"]:
        """The model's prediction for `latents` (already scaled) at `timestep`.

        `guidance` is the scale of a guidance-distilled model (`time_cond_proj_dim`), embedded with the time.
        `context_lengths` is how many tokens of the context each row attends to; all of them without it.
        """
        return self.denoise(
            latents, timestep, self.condition(context, pooled, time_ids, guidance, context_lengths=context_lengths)
        )

    def condition(
        self,
        context: Float[Array, "B L D"],
        pooled: Float[Array, "B P"],
        time_ids: Float[Array, "B I"],
        guidance: Float[Array, " B"] | None = None,
        *,
        context_lengths: Int[Array, " B"] | None = None,
    ) -> Conditioning:
        """What is the same at all steps of an image, from what `__call__` takes under these names."""
        each = context, context_lengths
        return Conditioning(
            [down.keys_values(*each) for down in self.down_blocks],
            self.mid_block.keys_values(*each),
            [up.keys_values(*each) for up in self.up_blocks],
            self._embed_added(pooled, time_ids),
            self._embed_guidance(guidance, context.dtype),
        )

    def denoise(
        self, latents: Float[Array, "B H W C"], timestep: Float[Array, " B"], given: Conditioning
    ) -> Float[Array, "B H W C"]:
        """One step's prediction."""
        time = self.embed_time(timestep, given)
        first = self.conv_in(latents)
        return self.shallow(first, self.deep(first, time, given), time, given)

    def embed_time(self, timestep: Float[Array, " B"], given: Conditioning) -> Float[Array, "B T"]:
        """The embedding of the timestep and of all else that each resnet is told."""
        waves = self._waves(timestep, self.config.block_out_channels[0]).astype(given.added.dtype)
        return self.time_embedding(waves, given.guidance) + given.added

    def deep(
        self, first: Float[Array, "B H W C"], time: Float[Array, "B T"], given: Conditioning
    ) -> Float[Array, "B H W C"]:
        """All between the first convolution, whose output `first` is, and the last up block's last layer."""
        skips = [first]
        for down, text in zip(self.down_blocks, given.down, strict=True):
            skips += down(skips[-1], time, text)
        x = self.mid_block(skips[-1], time, given.mid)
        *ups, last = self.up_blocks
        for up, text in zip(ups, given.up[:-1], strict=True):
            x = up(x, skips, time, text)
        for index in range(len(last.resnets) - 1):
            x = last.join(index, x, skips.pop(), time, given.up[-1])
        return x

    def shallow(
        self,
        first: Float[Array, "B H W C"],
        deep: Float[Array, "B H W C"],
        time: Float[Array, "B T"],
        given: Conditioning,
    ) -> Float[Array, "B H W O"]:
        """The last up block's last layer, and what follows: all that reads `first` itself beside the deep part."""
        last = self.up_blocks[-1]
        x = last.join(len(last.resnets) - 1, deep, first, time, given.up[-1])
        return self.conv_out(jax.nn.silu(self.conv_norm_out(x)))

    def _embed_guidance(self, guidance: Float[Array, " B"] | None, dtype: jnp.dtype) -> Float[Array, "B I"] | None:
        width = self.config.time_cond_proj_dim
        if not width or guidance is None:
            return None
        project = self.time_embedding.cond_proj
        assert project is not None  # built for the same `width`
        embedded: Float[Array, "B I"] = project(guidance_embedding(guidance, width).astype(dtype))
        return embedded

    def _embed_added(self, pooled: Float[Array, "B P"], time_ids: Float[Array, "B I"]) -> Float[Array, "B T"]:
        width = self.config.addition_time_embed_dim
        assert width is not None  # UNetConfig has checked it
        waves = self._waves(time_ids.reshape(-1), width).reshape(time_ids.shape[0], -1)  # (B 6) C -> B (6 C)
        return self.add_embedding(jnp.concatenate([pooled, waves.astype(pooled.dtype)], axis=-1))

    def _waves(self, values: Float[Array, " N"], width: int) -> Float[Array, "N C"]:
        return sinusoids(values, width, cosine_first=self.config.flip_sin_to_cos, freq_shift=self.config.freq_shift)


def sinusoids(values: Float[Array, " N"], width: int, *, cosine_first: bool, freq_shift: float) -> Float[Array, "N C"]:
    """Sines and cosines of `values` at frequencies from 1 down to about 1e-4, in float32.

    Source: Ho et al. 2020 (DDPM), as in diffusers `get_timestep_embedding`.
    """
    half = width // 2
    return _waves_of(values, _falling(-_LOG_PERIOD * _count(half) / np.float32(half - freq_shift)), width, cosine_first)


def guidance_embedding(guidance: Float[Array, " B"], width: int) -> Float[Array, "B C"]:
    """The embedding of a guidance scale that distilled models take (Meng et al. 2023, arXiv 2210.03142).

    The same waves as for the timestep, but diffusers' `get_guidance_scale_embedding` divides before it multiplies.
    """
    half = width // 2
    frequencies = _falling(_count(half) * -(_LOG_PERIOD / np.float32(half - 1)))
    return _waves_of((guidance - 1.0) * 1000.0, frequencies, width, cosine_first=False)


def _count(half: int) -> Float32[np.ndarray, " H"]:
    return np.arange(half, dtype=np.float32)


def _falling(exponents: Float32[np.ndarray, " H"]) -> Float32[np.ndarray, " H"]:
    return np.exp(exponents.astype(np.float64)).astype(np.float32)


def _waves_of(
    values: Float[Array, " N"], frequencies: Float32[np.ndarray, " H"], width: int, cosine_first: bool
) -> Float[Array, "N C"]:
    angles = values.astype(jnp.float32)[:, None] * frequencies[None, :]
    parts = [jnp.cos(angles), jnp.sin(angles)] if cosine_first else [jnp.sin(angles), jnp.cos(angles)]
    return jnp.pad(jnp.concatenate(parts, axis=-1), ((0, 0), (0, width % 2)))


def _resnet(config: UNetConfig, inputs: int, outputs: int) -> ResnetBlock:
    return ResnetBlock(
        inputs,
        outputs,
        groups=config.norm_num_groups,
        eps=config.norm_eps,
        time_width=4 * config.block_out_channels[0],
    )


def _transformer(config: UNetConfig, level: int) -> Transformer2D:
    return Transformer2D(
        config.block_out_channels[level],
        config.cross_attention_dim,
        heads=config.attention_heads[level],
        layers=config.transformer_layers[level],
        groups=config.norm_num_groups,
        linear=config.use_linear_projection,
    )
