"""Images as CLIP wants them: resized, cropped to a square and normalised, on the device, batch by batch.

The resizing is Pillow's bicubic one to the last bit (its Resample.c: antialiased, weights of 22 bits, bytes between
the two passes), as in transformers' `CLIPImageProcessor` on Pillow. So nothing has to come to the host first.
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""OpenAI's, of each channel from 0 to 1; every CLIP has them."""

_BITS = 22  # of a weight's fraction in Pillow, so that a sum of bytes fits in 32
_SUPPORT = 2.0  # pixels to either side, of the bicubic kernel


def clip_pixels(pixels: UInt8[Array, "B H W 3"], side: int) -> Float[Array, "B S S 3"]:
    """The middle square of each image, `side` pixels wide, normalised. The shorter edge is resized to fit."""
    small = _crop(resize(pixels, *_fitting(pixels.shape[1], pixels.shape[2], side)), side)
    scaled = small.astype(jnp.float32) * np.float32(1 / 255)
    return (scaled - _row(MEAN)) / _row(STD)


def resize(pixels: UInt8[Array, "B H W 3"], height: int, width: int) -> UInt8[Array, "B h w 3"]:
    """Pillow's `resize` with BICUBIC: first along the rows, then along the columns.

    That is Pillow's order up to version 12; 13 turns it round for images more than twice as high as wide (#9549).
    """
    pixels = _resample(pixels, width, axis=2)
    return _resample(pixels, height, axis=1)


def _fitting(height: int, width: int, side: int) -> tuple[int, int]:
    """The size whose shorter edge is `side`, rounded down as transformers rounds."""
    if width <= height:
        return int(side * height / width), side
    return side, int(side * width / height)


def _crop(pixels: UInt8[Array, "B H W 3"], side: int) -> UInt8[Array, "B S S 3"]:
    top, left = (pixels.shape[1] - side) // 2, (pixels.shape[2] - side) // 2
    return pixels[:, top : top + side, left : left + side]


def _row(values: tuple[float, ...]) -> Float[Array, "1 1 1 3"]:
    return jnp.asarray(values, jnp.float32)[None, None, None]


def _resample(pixels: UInt8[Array, "B H W 3"], size: int, *, axis: int) -> UInt8[Array, "B h w 3"]:
    if pixels.shape[axis] == size:
        return pixels
    places, weights = _taps(pixels.shape[axis], size)
    lines = jnp.moveaxis(pixels, axis, -1)  # the axis last: ... L
    total = jnp.full((*lines.shape[:-1], size), 1 << (_BITS - 1), jnp.int32)  # rounds, where shifting cuts
    for tap in range(places.shape[1]):
        weight = jnp.asarray(weights[:, tap]).reshape((1,) * (lines.ndim - 1) + (-1,))
        total += lines[..., places[:, tap]].astype(jnp.int32) * weight
    resized = jnp.clip(total >> _BITS, 0, 255).astype(jnp.uint8)
    return jnp.moveaxis(resized, -1, axis)


def _taps(old: int, new: int) -> tuple[Int[np.ndarray, "N T"], Int[np.ndarray, "N T"]]:
    """Of each new pixel, the old ones it is made of and their weights; those that it does not need weigh nothing."""
    scale = old / new
    stretch = max(scale, 1.0)  # when shrinking, the kernel grows: antialiasing
    reach = _SUPPORT * stretch
    centres = (np.arange(new) + 0.5) * scale
    first = np.maximum((centres - reach + 0.5).astype(int), 0)
    last = np.minimum((centres + reach + 0.5).astype(int), old)
    places = first[:, None] + np.arange(math.ceil(reach) * 2 + 1)
    weights = _bicubic((places - centres[:, None] + 0.5) / stretch) * (places < last[:, None])
    weights /= weights.sum(axis=1, keepdims=True)
    fixed = np.trunc(weights * (1 << _BITS) + np.copysign(0.5, weights)).astype(np.int32)
    return np.minimum(places, old - 1), fixed


def _bicubic(x: Float[np.ndarray, "..."], a: float = -0.5) -> Float[np.ndarray, "..."]:
    """Keys' kernel (IEEE Trans. ASSP 29, 1981) with Pillow's a."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
