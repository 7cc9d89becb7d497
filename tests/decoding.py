"""How far images of two decoders are apart, in grey levels; and latents to decode: for a test and a benchmark."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import jax
import numpy as np
from flax import nnx

from promptmill.worker.sdxl import generate
from promptmill.worker.sdxl.program import Model
from promptmill.worker.sdxl.requests import PlainRequest

PROMPTS = tuple(
    f"{thing} on a {background} background"
    for thing in ("a red apple", "a green heart", "a panda", "a soccer ball", "a smiley face", "a castle", "two cats")
    for background in ("blue", "white", "yellow", "gray")
)


@dataclass(frozen=True)
class Distance:
    """Grey levels, 0 to 255, over all values of all images; PSNR in dB."""

    mean: float
    most_of_them: float
    """99.9% are no farther than that."""
    farthest: int
    psnr: float

    @classmethod
    def between(cls, got: np.ndarray, expected: np.ndarray) -> Self:
        """Of uint8 images."""
        apart = np.abs(got.astype(int) - expected)
        psnr = 10 * np.log10(255**2 / np.mean(np.square(apart)))
        return cls(float(apart.mean()), float(np.percentile(apart, 99.9)), int(apart.max()), float(psnr))

    def cells(self) -> list[str]:
        """As a table shows it."""
        return [f"{self.mean:.2f}", f"{self.most_of_them:.0f}", str(self.farthest), f"{self.psnr:.1f}"]


def sampled_latents(model: Model, prompts: tuple[str, ...] = PROMPTS) -> np.ndarray:
    """Latents as the model's own sampling ends in, 10 steps a prompt."""
    side, batch = model.default_size, 4 * model.device_count
    stage = generate.Stage(end="latents")
    program = model.compile(width=side, height=side, guided=True, per_device_batch=4, stage=stage)
    requests = [
        PlainRequest(prompt, side, side, seed=seed, num_inference_steps=10, guidance_scale=3.5)
        for seed, prompt in enumerate(prompts)
    ]
    parts = [requests[first : first + batch] for first in range(0, len(requests), batch)]
    return np.concatenate([np.asarray(program.run(program.prepare(part)))[: len(part)] for part in parts])


def decoded(graph: nnx.GraphDef, weights: Any, latents: np.ndarray) -> np.ndarray:
    """Each latents' pixels, decoded one by one as a worker does."""
    decode = jax.jit(partial(_decode, graph))
    return np.stack([np.asarray(decode(weights, each)) for each in latents])


def _decode(graph: nnx.GraphDef, weights: Any, latents: jax.Array) -> jax.Array:
    vae = nnx.merge(graph, weights)
    return generate.decode(vae, vae.decoder.conv_in.kernel[...].dtype, latents).pixels
