"""The whole of rendering as one pure function: weights and inputs to pixels. This is what gets compiled.

It runs once a device, on that device's part of the batch, and never looks at another's.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt32

from promptmill.worker.program import Result
from promptmill.worker.sampling.samplers import Table, initial_state, row_at, scale_input, step
from promptmill.worker.sampling.twister import draw
from promptmill.worker.sdxl.condition import encode_windows, used_keys
from promptmill.worker.sdxl.config import ModelConfig
from promptmill.worker.sdxl.deepcache import Deep, denoise, nothing_kept
from promptmill.worker.sdxl.unet import Conditioning
from promptmill.worker.text.prompts import Tokens


@dataclass(frozen=True)
class Stage:
    """What a program begins with and what it ends in; a base model and its refiner are two programs."""

    start: Literal["noise", "latents"] = "noise"
    end: Literal["pixels", "latents"] = "pixels"


TEXT_TO_IMAGE = Stage()


class Inputs(NamedTuple):
    """One batch, as the host prepares it: numpy arrays outside the program, JAX arrays inside.

    N is 2 with guidance (negative first, as in diffusers), else 1. `tokens` are `prompts.py`'s, with B N in front, and
    `tables` are `samplers.py`'s. What a program has no use for is None.
    """

    tokens: Tokens
    layers_skipped: Int[Any, "B N"]
    zero_negative: Bool[Any, " B"]
    time_ids: Float[Any, "B N I"]
    guidance_scale: Float[Any, " B"]
    guidance_rescale: Float[Any, " B"]
    noise: Float[Any, "B h w C"]
    generator: UInt32[Any, "B 624"] | None
    latents: Float[Any, "B h w C"] | None
    guides: Bool[Any, "B E"] | None
    """Which evaluations are guided, where not all are."""
    refreshes: Bool[Any, "B N E"] | None
    """At which evaluations each pass computes the UNet's deep part, where that is not every one."""
    evaluations: Int[Any, " B"]
    tables: Table


class Condition(NamedTuple):
    """What the UNet is told of each image, for each of the N passes."""

    context: Float[Array, "B N L D"]
    pooled: Float[Array, "B N P"]
    time_ids: Float[Array, "B N I"]
    lengths: Int[Array, "B N"] | None
    """How much of the context counts, where that is not all of it."""


def generate(
    config: ModelConfig,
    graphs: dict[str, nnx.GraphDef],
    stage: Stage,
    weights: dict[str, Any],
    inputs: Inputs,
) -> Result | Float[Array, "B h w C"]:
    """Render one device's part of a batch. All but `weights` and `inputs` is static."""
    nets = {name: nnx.merge(graph, weights[name]) for name, graph in graphs.items()}
    latents = sample(nets["unet"], encode_text(nets, inputs), inputs)
    if stage.end == "latents":
        return latents
    dtype = nets["vae"].decoder.conv_in.kernel[...].dtype
    return lax.map(partial(decode, nets["vae"], dtype), latents)


def encode_text(nets: dict[str, nnx.Module], inputs: Inputs) -> Condition:
    """All encoders' hidden states side by side; all zeros for a negative prompt that was not given."""
    tokens, skipped = inputs.tokens, inputs.layers_skipped
    context, pooled = encode_windows(nets["text_encoder_2"], tokens.ids_2, skipped, tokens.weights_2, tokens.empty_2)
    if "text_encoder" in nets:  # a refiner has the second one alone
        first, _ = encode_windows(nets["text_encoder"], tokens.ids, skipped, tokens.weights, tokens.empty)
        context = jnp.concatenate([first, context], axis=-1)
    if pooled.shape[1] == 2:
        dropped = inputs.zero_negative[:, None] & jnp.array([[True, False]])
        context = jnp.where(dropped[:, :, None, None], 0, context)
        pooled = jnp.where(dropped[:, :, None], 0, pooled)
    windows, length = tokens.ids_2.shape[2:]
    lengths = used_keys(tokens.windows, length) if windows > 1 else None
    return Condition(context, pooled, inputs.time_ids, lengths)


def sample(unet: nnx.Module, condition: Condition, inputs: Inputs) -> Float[Array, "B h w C"]:
    """From noise to latents. Runs to the largest step count here; a job that is done keeps its latents."""
    _, height, width, channels = inputs.noise.shape
    guidance = inputs.guidance_scale, inputs.guidance_rescale
    passes = condition.context.shape[1]
    given = condition_unet(unet, condition, inputs.guidance_scale)

    def body(index: Int[Array, ""], carry: Any) -> Any:
        state, generator, kept = carry
        row, noise = row_at(inputs.tables, index), None
        deep = None if inputs.refreshes is None else Deep(kept, inputs.refreshes[:, :, index].reshape(-1))
        now = unet, scale_input(row, state), row.timestep, given, deep
        if inputs.guides is None:
            prediction, kept = predict(*now, *guidance, passes=passes)
        else:
            prediction, kept = predict_in_turn(*now, *guidance, inputs.guides[:, index])
        if generator is not None:
            drawn, noise = draw(generator, height, width, channels)
            generator = jnp.where(row.draws[:, None] > 0, drawn, generator)
        stepped = step(row, state, prediction, noise)
        goes_on = index < inputs.evaluations
        return jnp.where(goes_on[:, None, None, None, None], stepped, state), generator, kept

    kept = None if inputs.refreshes is None else nothing_kept(unet, inputs.noise, given)
    start = initial_state(first_latents(inputs)), inputs.generator, kept
    state, *_ = lax.fori_loop(0, jnp.max(inputs.evaluations), body, start)
    return state[:, 0]


def first_latents(inputs: Inputs) -> Float[Array, "B h w C"]:
    """Noise at its first deviation; for a refiner the latents that it is given, with noise or without."""
    noisy = per_image(inputs.tables.start[:, 1]) * inputs.noise
    return noisy if inputs.latents is None else per_image(inputs.tables.start[:, 0]) * inputs.latents + noisy


def condition_unet(unet: nnx.Module, condition: Condition, guidance_scale: Float[Array, " B"]) -> Conditioning:
    """What the UNet makes of its conditioning: the same at each step, so it is computed outside their loop."""
    passes = condition.context.shape[1]
    context, pooled, time_ids, lengths = (
        None if part is None else part.reshape(-1, *part.shape[2:]) for part in condition
    )
    scales = jnp.repeat(guidance_scale, passes)
    given: Conditioning = unet.condition(context, pooled, time_ids, scales, context_lengths=lengths)
    return given


def predict(
    unet: nnx.Module,
    latents: Float[Array, "B h w C"],
    timestep: Float[Array, " B"],
    given: Conditioning,
    deep: Deep | None,
    guidance_scale: Float[Array, " B"],
    guidance_rescale: Float[Array, " B"],
    *,
    passes: int,
) -> tuple[Float[Array, "B h w C"], Float[Array, "R h w D"] | None]:
    """The UNet's prediction in float32, all N passes as one batch, joined by classifier-free guidance.

    `given` and `deep` have a row R per image and pass, as has the second that is returned: the deep part to keep.
    """
    each_pass = partial(jnp.repeat, repeats=passes, axis=0)  # B ... -> (B N) ...
    model_input = each_pass(latents.astype(given.added.dtype))
    predicted, kept = denoise(unet, model_input, each_pass(timestep), given, deep)
    predicted = predicted.astype(jnp.float32)
    if passes == 1:
        return predicted, kept
    return guide(predicted[0::2], predicted[1::2], guidance_scale, guidance_rescale), kept


def predict_in_turn(
    unet: nnx.Module,
    latents: Float[Array, "B h w C"],
    timestep: Float[Array, " B"],
    given: Conditioning,
    deep: Deep | None,
    guidance_scale: Float[Array, " B"],
    guidance_rescale: Float[Array, " B"],
    guides: Bool[Array, " B"],
) -> tuple[Float[Array, "B h w C"], Float[Array, "R h w D"] | None]:
    """As `predict`, but the negative pass is a second run of the UNet, and none where nobody is guided now.

    Two turns of one loop, so that the UNet stands once in the program, and that the positive pass has the same bits
    whether or not a neighbour is guided at this step.
    """
    # (B N) ... -> N B ..., the positive pass first
    passes = jax.tree.map(lambda leaf: jnp.stack([leaf[1::2], leaf[0::2]]), (given, deep))
    model_input = latents.astype(given.added.dtype)

    def run(given: Conditioning, deep: Deep | None) -> Any:
        prediction, kept = denoise(unet, model_input, timestep, given, deep)
        return prediction.astype(jnp.float32), kept

    def pass_over(given: Conditioning, deep: Deep | None) -> Any:
        return jnp.zeros(latents.shape, jnp.float32), None if deep is None else deep.kept

    runs = jnp.stack([jnp.array(True), jnp.any(guides)])
    predicted, kept = lax.map(lambda each: lax.cond(each[0], run, pass_over, *each[1]), (runs, passes))
    positive, negative = predicted
    if kept is not None:
        kept = jnp.stack([kept[1], kept[0]], axis=1).reshape(-1, *kept.shape[2:])  # N B ... -> (B N) ...
    guided = guide(negative, positive, guidance_scale, guidance_rescale)
    return jnp.where(guides[:, None, None, None], guided, positive), kept


def guide(
    negative: Float[Array, "B h w C"],
    positive: Float[Array, "B h w C"],
    guidance_scale: Float[Array, " B"],
    guidance_rescale: Float[Array, " B"],
) -> Float[Array, "B h w C"]:
    """Classifier-free guidance."""
    guided = negative + per_image(guidance_scale) * (positive - negative)
    return rescale(guided, positive, per_image(guidance_rescale))


def rescale(
    guided: Float[Array, "B h w C"], positive: Float[Array, "B h w C"], share: Float[Array, "B 1 1 1"]
) -> Float[Array, "B h w C"]:
    """Guided predictions with a share of the deviation that they had unguided (arXiv 2305.08891, section 3.4)."""
    ratio = jnp.std(positive, axis=(1, 2, 3), keepdims=True) / jnp.std(guided, axis=(1, 2, 3), keepdims=True)
    return jnp.where(share > 0, share * guided * ratio + (1 - share) * guided, guided)


def decode(vae: nnx.Module, dtype: Any, latents: Float[Array, "h w C"]) -> Result:
    """One image's latents to bytes, rounded as diffusers' `VaeImageProcessor` rounds."""
    image = vae(latents[None].astype(dtype))[0].astype(jnp.float32)
    scaled = jnp.clip(image / 2 + 0.5, 0, 1) * 255
    pixels = jnp.round(scaled).astype(jnp.uint8)
    return Result(pixels, jnp.all(jnp.isfinite(image)), jnp.all(pixels == pixels[:1, :1]))


def per_image(values: Float[Array, " B"]) -> Float[Array, "B 1 1 1"]:
    return values[:, None, None, None]
