"""Scenes encoded once and drawn from many times, with latents of mean zero and deviation one."""

from functools import partial
from typing import Any

import jax
import numpy as np

from tools.pocket.images import Sprites, compose
from tools.pocket.nets import Weights, bind
from tools.pocket.scenes import Scene, random_scene

_CHUNK = 64


def scene_batch(sprites: Sprites, seed: int, count: int = _CHUNK) -> tuple[list[Scene], np.ndarray]:
    """Random scenes and their images in [-1, 1], the same for the same seed."""
    draw = np.random.default_rng([29, seed])
    scenes = [random_scene(draw) for _ in range(count)]
    images = np.stack([compose(scene, sprites, draw) for scene in scenes])
    return scenes, images.astype(np.float32) / 127.5 - 1


@partial(jax.jit, static_argnums=0)
def encode(build: Any, weights: Weights, images: Any) -> Any:
    return bind(build, weights)(images)[0]


class Cache:
    """Scenes with their latents; it grows while training goes on, so that training can begin at once."""

    def __init__(self, build: Any, weights: Weights, sprites: Sprites) -> None:
        self._encode = partial(encode, build, weights)
        self._sprites = sprites
        self._scenes: list[Scene] = []
        self._latents: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self._scenes)

    def grow_to(self, count: int) -> None:
        """Encode more scenes until there are at least `count`."""
        while len(self) < count:
            scenes, images = scene_batch(self._sprites, seed=len(self) // _CHUNK)
            self._scenes += scenes
            self._latents += list(np.asarray(self._encode(images)))

    def sample(self, count: int, draw: np.random.Generator) -> tuple[list[Scene], np.ndarray]:
        places = draw.integers(len(self), size=count)
        return [self._scenes[place] for place in places], np.stack([self._latents[place] for place in places])


def normalised(builders: dict[str, Any], weights: dict[str, Weights], sprites: Sprites) -> dict[str, Weights]:
    """The same autoencoder, its latents scaled to deviation one: what `scaling_factor` does, inside the weights.

    The encoder's last convolution and the decoder's first are both 1 x 1, so that each channel can have its own.
    """
    batches = [scene_batch(sprites, seed=10**6 + place)[1] for place in range(8)]
    latents = np.concatenate([np.asarray(encode(builders["vae_encoder"], weights["vae_encoder"], b)) for b in batches])
    mean, deviation = latents.mean((0, 1, 2)), latents.std((0, 1, 2))
    encoder, decoder = dict(weights["vae_encoder"]), dict(weights["vae"])
    kernel, bias = ("quant_conv", "kernel"), ("quant_conv", "bias")
    scale = np.concatenate([1 / deviation, np.ones_like(deviation)])
    shift = np.concatenate([-mean / deviation, -2 * np.log(deviation)])
    encoder[kernel], encoder[bias] = encoder[kernel] * scale, encoder[bias] * scale + shift
    kernel, bias = ("post_quant_conv", "kernel"), ("post_quant_conv", "bias")
    decoder[bias] = decoder[bias] + mean @ decoder[kernel][0, 0]
    decoder[kernel] = decoder[kernel] * deviation[:, None]
    return {"vae_encoder": encoder, "vae": decoder}
