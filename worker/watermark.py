"""SDXL's invisible watermark: 48 bits in the blue-yellow of an image, which survive a PNG and mild JPEG.

The message and the method ("dwtDct") are those that diffusers puts into SDXL's images with the package
invisible-watermark (pipelines/stable_diffusion_xl/watermark.py), so its decoder reads ours. The package itself needs
PyTorch and OpenCV; what it does is little: one coefficient of each 8 x 8 pixels is moved to a quarter or to three
quarters of a step of 36, for a 0 or a 1, and the message is repeated over the whole image.

Two things are done for the decoder's sake that the package's own encoder does not do. It reads bytes, whose U lies
around 128; diffusers marks floats, whose U lies around 0.5, so that a part of its bits is read wrong. And it looks
for the bit in the largest coefficient; so the one that was moved has to stay the largest, or nothing smooth is read.
"""

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

NAME = "sdxl-dwtdct"
MESSAGE = 0b101100111110110010010000011110111011000110011110
BITS = np.array([int(bit) for bit in f"{MESSAGE:b}"])

MIN_PIXELS = 256 * 256  # the decoder looks at no smaller image
STEP = 36  # of a coefficient
BLOCK = 4  # coefficients, of 2 x 2 pixels each
LEAD = 4  # by which a moved coefficient stays ahead of the others, so that rounding to bytes changes nothing

_RGB_OF_U = np.array([0.0, -0.395, 2.032], np.float32)


def mark(pixels: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """The image with SDXL's watermark. Of each 8 x 8 pixels, 2 x 2 change."""
    blocks = _blocks(pixels)
    at = _indexes(blocks)
    values = np.take_along_axis(blocks, at, axis=1)[:, 0]
    change = np.zeros_like(blocks)
    moved = _moved(values, _next_largest(blocks), np.resize(BITS, len(blocks)))
    np.put_along_axis(change, at, (moved - values)[:, None] / 2, axis=1)  # each of 2 x 2 pixels is half of a sum
    coloured = pixels + _as_pixels(change, *pixels.shape[:2])[..., None] * _RGB_OF_U
    return np.clip(np.round(coloured), 0, 255).astype(np.uint8)


def bits_in(pixels: UInt8[np.ndarray, "H W 3"]) -> Bool[np.ndarray, "48"]:
    """The 48 bits that a decoder finds, whether there is a watermark or not: each block votes for one of them."""
    blocks = _blocks(pixels)
    values = np.take_along_axis(blocks, _indexes(blocks), axis=1)[:, 0]
    votes = values % STEP > STEP / 2
    indexes = np.resize(np.arange(len(BITS)), len(votes))
    return np.bincount(indexes, votes, len(BITS)) * 255 > 127 * np.bincount(indexes, minlength=len(BITS))


def is_marked(pixels: UInt8[np.ndarray, "H W 3"]) -> bool:
    """Whether SDXL's watermark can be read, every bit of it."""
    return bool(np.array_equal(bits_in(pixels), BITS == 1))


def _blocks(pixels: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "N 16"]:
    """Haar's low band of U, in blocks of 4 x 4; a strip at the right and at the bottom may be left over."""
    height, width = (size // (2 * BLOCK) for size in pixels.shape[:2])
    u = _u(pixels[: height * 2 * BLOCK, : width * 2 * BLOCK])
    # (h 4 2) (w 4 2) -> h w 4 4 2 2
    split = u.reshape(height, BLOCK, 2, width, BLOCK, 2).transpose(0, 3, 1, 4, 2, 5)
    return split.sum(axis=(4, 5)).reshape(height * width, BLOCK * BLOCK) / np.float32(2)


def _u(pixels: UInt8[np.ndarray, "H W 3"]) -> Int[np.ndarray, "H W"]:
    """U of bytes, from 0 to 255, in the whole numbers of OpenCV's BGR2YUV (color_yuv.simd.hpp)."""
    red, green, blue = np.moveaxis(pixels.astype(np.int32), -1, 0)
    half = 1 << 13
    luma = (4899 * red + 9617 * green + 1868 * blue + half) >> 14
    return np.clip(((blue - luma) * 8061 + (128 << 14) + half) >> 14, 0, 255)


def _indexes(blocks: Float[np.ndarray, "N 16"]) -> Int[np.ndarray, "N 1"]:
    """Of each block the coefficient that carries its bit: the largest, but for the first."""
    return np.argmax(blocks[:, 1:], axis=1, keepdims=True) + 1


def _next_largest(blocks: Float[np.ndarray, "N 16"]) -> Float[np.ndarray, " N"]:
    """Of each block, what the coefficient that carries its bit must not fall below."""
    return np.partition(blocks[:, 1:], -2, axis=1)[:, -2]


def _moved(
    values: Float[np.ndarray, " N"], others: Float[np.ndarray, " N"], bits: Int[np.ndarray, " N"]
) -> Float[np.ndarray, " N"]:
    """The value of each bit that is nearest to what was there, among those that stay ahead of the others."""
    offset = (0.25 + 0.5 * bits) * STEP
    nearest = np.round((values - offset) / STEP)
    lowest = np.ceil((others + LEAD - offset) / STEP)
    return (np.maximum(nearest, lowest) * STEP + offset).astype(np.float32)


def _as_pixels(blocks: Float[np.ndarray, "N 16"], height: int, width: int) -> Float[np.ndarray, "H W"]:
    """Each coefficient where its 2 x 2 pixels are, and 0 in the strips that belong to no block."""
    rows, columns = height // (2 * BLOCK), width // (2 * BLOCK)
    # (h w) (4 4) -> (h 4) (w 4)
    coefficients = blocks.reshape(rows, columns, BLOCK, BLOCK).swapaxes(1, 2).reshape(rows * BLOCK, columns * BLOCK)
    spread = coefficients.repeat(2, axis=0).repeat(2, axis=1)
    return np.pad(spread, ((0, height - spread.shape[0]), (0, width - spread.shape[1])))
