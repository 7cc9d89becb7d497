"""What can be measured of an image without a model: brightness, contrast, sharpness, and a hash of what it looks like.

The hash is dHash (N. Krawetz, "Kind of Like That", 2013), the same 64 bits as `imagehash.dhash`: whether each of 8x8
points is brighter than its left neighbour, on a grey image of 9x8. Our own: imagehash brings SciPy and PyWavelets.
"""

import hashlib
from dataclasses import dataclass

from PIL import Image, ImageFilter, ImageStat

HASH_SIDE = 8
PLAIN = 1.0
"""Contrast below which an image shows nothing."""

# Points that differ from their neighbours; around 128, as an image has no negative values.
_LAPLACE = ImageFilter.Kernel((3, 3), (0, 1, 0, 1, -4, 1, 0, 1, 0), scale=1, offset=128)


@dataclass(frozen=True)
class Measures:
    """Of one image. `brightness` is the mean of its grey values, `contrast` their standard deviation, both 0 to 255;
    `sharpness` the variance of their Laplacian. `pixels` is a digest of the pixels, `dhash` of what they look like."""

    brightness: float
    contrast: float
    sharpness: float
    pixels: bytes
    dhash: int

    @property
    def plain(self) -> bool:
        return self.contrast < PLAIN


def measure(image: Image.Image) -> Measures:
    """Measure an image in RGB."""
    grey = image.convert("L")
    stat = ImageStat.Stat(grey)
    inside = grey.filter(_LAPLACE).crop((1, 1, max(grey.width - 1, 2), max(grey.height - 1, 2)))
    pixels = hashlib.blake2b(f"{image.size}".encode() + image.tobytes(), digest_size=16).digest()
    return Measures(stat.mean[0], stat.stddev[0], ImageStat.Stat(inside).var[0], pixels, dhash(grey))


def dhash(grey: Image.Image) -> int:
    """64 bits, the first point of the first row highest."""
    points = grey.resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.LANCZOS).tobytes()
    bits = 0
    for row in range(HASH_SIDE):
        at = row * (HASH_SIDE + 1)
        for left, right in zip(points[at : at + HASH_SIDE], points[at + 1 : at + HASH_SIDE + 1], strict=True):
            bits = bits << 1 | (right > left)
    return bits
