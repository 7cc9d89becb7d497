"""DeepCache (Ma et al. 2023, arXiv 2312.00858): the UNet's deep part is computed at some evaluations, and kept between.

What is kept is the input of the last up block's last layer: branch 0 of the PyPI package DeepCache, its default.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from promptmill.worker.sdxl.unet import Conditioning, UNet


class Deep(NamedTuple):
    """The deep part's output of an earlier evaluation, and the images for which it is due anew at this one."""

    kept: Float[Array, "B H W C"]
    due: Bool[Array, " B"]


def nothing_kept(unet: UNet, latents: Float[Array, "B h w _"], given: Conditioning) -> Float[Array, "R h w C"]:
    """What is carried before the first evaluation, at which all are due: a row R per image and pass, as in `given`."""
    size = len(given.added), *latents.shape[1:3], unet.config.block_out_channels[0]
    return jnp.zeros(size, given.added.dtype)


def denoise(
    unet: UNet,
    latents: Float[Array, "B H W C"],
    timestep: Float[Array, " B"],
    given: Conditioning,
    deep: Deep | None,
) -> tuple[Float[Array, "B H W C"], Float[Array, "B H W D"] | None]:
    """One step's prediction, and the deep part's output to keep; without `deep` the whole UNet runs and none is kept.

    The deep part runs for all images where it is due for any, and an image for which it is not takes its kept one:
    its bits do not depend on the others.
    """
    if deep is None:
        return unet.denoise(latents, timestep, given), None
    time = unet.embed_time(timestep, given)
    first = unet.conv_in(latents)
    computed = lax.cond(jnp.any(deep.due), lambda: unet.deep(first, time, given), lambda: deep.kept)
    kept = jnp.where(deep.due[:, None, None, None], computed, deep.kept)
    return unet.shallow(first, kept, time, given), kept
