"""What bfloat16 costs: the same images with some of the parts in bfloat16, against all of it in float32."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from promptmill.worker.program import Result
from promptmill.worker.sampling import samplers
from promptmill.worker.sdxl import generate
from promptmill.worker.sdxl.program import Model
from promptmill.worker.sdxl.requests import Kind, PlainRequest, prepare_inputs
from tests.parity import cases, theirs

REQUESTS = [
    PlainRequest(prompt, 64, 64, seed=seed, negative_prompt=negative, num_inference_steps=20, guidance_scale=scale)
    for seed, (prompt, negative, scale) in enumerate(
        [
            ("a red apple on a blue background", None, 5.0),
            ("two yellow stars on a green background", "blurry", 7.5),
            ("a cat in the rain, oil painting", None, 1.5),
            ("a castle at night", "fog", 12.0),
        ]
    )
]


@dataclass(frozen=True)
class Variant:
    """Which parts compute in bfloat16, and whether the latents are kept in it between steps."""

    says: str
    text: bool = False
    unet: bool = False
    vae: bool = False
    latents: bool = False


OURS_UPCAST = "text encoders and UNet, VAE float32: ours with `force_upcast`"
THEIRS = "PyTorch's pipeline, all of it and latents between steps"

VARIANTS = [
    Variant("text encoders", text=True),
    Variant("UNet", unet=True),
    Variant("VAE", vae=True),
    Variant(OURS_UPCAST, text=True, unet=True),
    Variant("all networks: ours without `force_upcast`", text=True, unet=True, vae=True),
    Variant("all networks, and latents between steps (tried, not taken)", text=True, unet=True, vae=True, latents=True),
]


@dataclass(frozen=True)
class PrecisionRow:
    """Medians over the requests: the latents' relative error, and the pixels' PSNR in dB."""

    says: str
    latents: float
    psnr: float
    worst_psnr: float

    def cells(self) -> list[str]:
        """The row as the table shows it."""
        return [self.says, f"{self.latents:.1e}", f"{self.psnr:.1f}", f"{self.worst_psnr:.1f}"]


Rendered = list[tuple[np.ndarray, np.ndarray]]
"""Of each request its latents, in float32, and its pixels."""


def rows(folder: Path, requests: Sequence[PlainRequest] = REQUESTS) -> list[PrecisionRow]:
    """A row a variant, and one of PyTorch's pipeline all in bfloat16 against itself in float32."""
    model, half = (
        Model.load(folder, devices=jax.local_devices()[:1], dtype=jnp.float32, vae_dtype=vae_dtype)
        for vae_dtype in (jnp.float32, jnp.bfloat16)
    )
    render = renderer(model, half)
    exact = [render(Variant("all float32"), request) for request in requests]
    found = [_row(variant.says, [render(variant, request) for request in requests], exact) for variant in VARIANTS]
    single, half = (theirs.load(folder, dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    expected, got = ([_theirs(pipeline, request) for request in requests] for pipeline in (single, half))
    return [*found, _row(THEIRS, got, expected)]


def _row(says: str, got: Rendered, expected: Rendered) -> PrecisionRow:
    errors = [cases.relative_error(ours[0], theirs[0]) for ours, theirs in zip(got, expected, strict=True)]
    psnrs = [cases.psnr(ours[1], theirs[1]) for ours, theirs in zip(got, expected, strict=True)]
    return PrecisionRow(says, float(np.median(errors)), float(np.median(psnrs)), min(psnrs))


def renderer(model: Model, half: Model) -> Callable[[Variant, PlainRequest], tuple[np.ndarray, np.ndarray]]:
    """What renders a request as a variant says; each part is compiled once for each way that it computes in.

    `half` has the VAE in bfloat16 as `--vae-dtype` has it: some weights stay in float32.
    """
    encode = jax.jit(partial(_encode, model.graphs))
    denoise = jax.jit(partial(_sample, model.graphs["unet"]))
    to_pixels, to_pixels_in_half = (jax.jit(partial(decode, each.graphs["vae"])) for each in (model, half))
    sample_in_half = jax.jit(partial(_sample_in_half, model.graphs["unet"]))

    def render(variant: Variant, request: PlainRequest) -> tuple[np.ndarray, np.ndarray]:
        kind = Kind(request.width, request.height, guided=request.guidance_scale > 1)
        inputs = prepare_inputs(model.config, model.tokenizers, [request], kind).inputs
        texts = {name: _in(variant.text, model.weights[name]) for name in ("text_encoder", "text_encoder_2")}
        condition = _in(variant.unet, encode(texts, inputs))._replace(time_ids=inputs.time_ids)
        latents = (sample_in_half if variant.latents else denoise)(
            _in(variant.unet, model.weights["unet"]), condition, inputs
        )
        if variant.vae:
            result = to_pixels_in_half(half.weights["vae"], latents)
        else:
            result = to_pixels(model.weights["vae"], latents)
        return np.asarray(latents)[0], np.asarray(result.pixels)

    return render


def _in(half: bool, tree: Any) -> Any:
    dtype = jnp.bfloat16 if half else jnp.float32
    return jax.tree.map(lambda part: part.astype(dtype) if jnp.issubdtype(part.dtype, jnp.floating) else part, tree)


def _encode(graphs: dict[str, nnx.GraphDef], weights: dict[str, Any], inputs: generate.Inputs) -> generate.Condition:
    return generate.encode_text({name: nnx.merge(graphs[name], weights[name]) for name in weights}, inputs)


def _sample(graph: nnx.GraphDef, weights: Any, condition: generate.Condition, inputs: generate.Inputs) -> jax.Array:
    return generate.sample(nnx.merge(graph, weights), condition, inputs)


def _sample_in_half(
    graph: nnx.GraphDef, weights: Any, condition: generate.Condition, inputs: generate.Inputs
) -> jax.Array:
    step = samplers.step

    def rounded(*args: Any) -> jax.Array:
        return step(*args).astype(jnp.bfloat16).astype(jnp.float32)

    with mock.patch.object(generate, "step", rounded):
        return _sample(graph, weights, condition, inputs)


def decode(graph: nnx.GraphDef, weights: Any, latents: jax.Array) -> Result:
    """The first latents' image, in the dtype of the weights."""
    vae = nnx.merge(graph, weights)
    return generate.decode(vae, vae.decoder.conv_in.kernel[...].dtype, latents[0])


def _theirs(pipeline: Any, request: PlainRequest) -> tuple[np.ndarray, np.ndarray]:
    return theirs.latents(pipeline, request), theirs.image(pipeline, request)
