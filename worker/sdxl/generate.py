"""The whole of rendering as one pure function: weights and inputs to pixels. This is what gets compiled.

It runs once a device, on that device's part of the batch, and never looks at another's.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt8

from worker.sdxl.config import ModelConfig
from worker.sdxl.samplers import SAMPLERS, denoise, per_image, row_at, scale_input


class Inputs(NamedTuple):
    """One batch, as the host prepares it: numpy arrays outside the program, JAX arrays inside.

    N is 2 with guidance (negative first, as in diffusers), else 1. The tables are `schedule.py`'s.
    """

    ids: Int[Any, "B N L"]
    ids_2: Int[Any, "B N L"]
    zero_negative: Bool[Any, "B"]
    time_ids: Float[Any, "B N 6"]
    guidance_scale: Float[Any, "B"]
    noise: Float[Any, "B h w C"]
    steps: Int[Any, "B"]
    timesteps: Float[Any, "B T"]
    sigmas: Float[Any, "B T1"]


class Result(NamedTuple):
    """Pixels, and of each image whether the decoder gave numbers all over it."""

    pixels: UInt8[Array, "B H W 3"]
    finite: Bool[Array, "B"]


class Condition(NamedTuple):
    """What the UNet is told of each image, for each of the N passes."""

    context: Float[Array, "B N L D"]
    pooled: Float[Array, "B N P"]
    time_ids: Float[Array, "B N 6"]


def generate(
    config: ModelConfig,
    graphs: dict[str, nnx.GraphDef],
    sampler: str,
    weights: dict[str, Any],
    inputs: Inputs,
) -> Result:
    """Render one device's part of a batch. All but `weights` and `inputs` is static."""
    nets = {name: nnx.merge(graph, weights[name]) for name, graph in graphs.items()}
    condition = encode_text(nets["text_encoder"], nets["text_encoder_2"], inputs)
    latents = sample(config, nets["unet"], sampler, condition, inputs)
    dtype = nets["vae"].decoder.conv_in.kernel[...].dtype
    return lax.map(partial(decode, nets["vae"], dtype), latents)


def encode_text(encoder: nnx.Module, encoder_2: nnx.Module, inputs: Inputs) -> Condition:
    """Both encoders' hidden states side by side; all zeros for a negative prompt that was not given."""
    batch, passes, length = inputs.ids.shape
    context, _ = encoder(inputs.ids.reshape(-1, length))  # B N L -> (B N) L
    context_2, pooled = encoder_2(inputs.ids_2.reshape(-1, length))
    context = jnp.concatenate([context, context_2], axis=-1).reshape(batch, passes, length, -1)
    pooled = pooled.reshape(batch, passes, -1)
    if passes == 2:
        dropped = inputs.zero_negative[:, None] & jnp.array([[True, False]])
        context = jnp.where(dropped[:, :, None, None], 0, context)
        pooled = jnp.where(dropped[:, :, None], 0, pooled)
    return Condition(context, pooled, inputs.time_ids)


def sample(
    config: ModelConfig, unet: nnx.Module, sampler: str, condition: Condition, inputs: Inputs
) -> Float[Array, "B h w C"]:
    """From noise to latents. Runs to the largest step count here; a job that is done keeps its latents."""

    def body(index: Int[Array, ""], latents: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        row = row_at(inputs.timesteps, inputs.sigmas, index)
        prediction = predict(unet, scale_input(row, latents), row.timestep, condition, inputs.guidance_scale)
        denoised = denoise(config.scheduler.prediction_type, row, latents, prediction)
        stepped = SAMPLERS[sampler].step(row, latents, denoised)
        return jnp.where(per_image(index < inputs.steps), stepped, latents)

    return lax.fori_loop(0, jnp.max(inputs.steps), body, inputs.noise)


def predict(
    unet: nnx.Module,
    latents: Float[Array, "B h w C"],
    timestep: Float[Array, "B"],
    condition: Condition,
    guidance_scale: Float[Array, "B"],
) -> Float[Array, "B h w C"]:
    """The UNet's prediction in float32, all N passes as one batch, joined by classifier-free guidance."""
    dtype = condition.context.dtype
    passes = condition.context.shape[1]
    each_pass = partial(jnp.repeat, repeats=passes, axis=0)  # B ... -> (B N) ...
    predicted = unet(
        each_pass(latents.astype(dtype)),
        each_pass(timestep),
        *(part.reshape(-1, *part.shape[2:]) for part in condition),
        each_pass(guidance_scale),
    ).astype(jnp.float32)
    if passes == 1:
        return predicted
    negative, positive = predicted[0::2], predicted[1::2]
    return negative + per_image(guidance_scale) * (positive - negative)


def decode(vae: nnx.Module, dtype: jnp.dtype, latents: Float[Array, "h w C"]) -> Result:
    """One image's latents to bytes, rounded as diffusers' `VaeImageProcessor` rounds."""
    image = vae(latents[None].astype(dtype))[0].astype(jnp.float32)
    scaled = jnp.clip(image / 2 + 0.5, 0, 1) * 255
    return Result(jnp.round(scaled).astype(jnp.uint8), jnp.all(jnp.isfinite(image)))


def shard_over_devices(function: Any, mesh: jax.sharding.Mesh) -> Any:
    """`function(weights, inputs)` once a device: weights whole, inputs split along the batch."""
    whole, split = jax.P(), jax.P("device")
    return jax.shard_map(function, mesh=mesh, in_specs=(whole, split), out_specs=split, check_vma=False)
