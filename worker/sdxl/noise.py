"""The noise that a seed means: what PyTorch's CPU generator draws for it.

`torch.randn(shape, generator=torch.Generator().manual_seed(seed))` in float32, to the last digits of the
logarithm and cosine; so a seed gives the picture that it gives in diffusers. Source: the MT19937 paper
(Matsumoto and Nishimura 1998), Box-Muller, and how PyTorch's `DistributionTemplates.h` puts the two together.
"""

import numpy as np
from jaxtyping import Float, Float32, Float64

# PyTorch draws in blocks of 16: eight pairs for Box-Muller.
_BLOCK = 16


def draw_noise(seed: int, height: int, width: int, channels: int) -> Float32[np.ndarray, "H W C"]:
    """Standard normal noise of one image's latents. Drawn channels first, as diffusers does, then turned."""
    flat = randn(seed, channels * height * width)
    return np.ascontiguousarray(flat.reshape(channels, height, width).transpose(1, 2, 0))


def randn(seed: int, count: int) -> Float32[np.ndarray, "N"]:
    """The first `count` values of PyTorch's CPU `randn` for `seed`, an integer of which 32 bits count."""
    twister = np.random.RandomState(seed & 0xFFFFFFFF)
    if count < _BLOCK:
        return _one_by_one(twister, count)
    uniform = _uniform24(twister, count)
    values = np.empty(count, np.float32)
    whole = count - count % _BLOCK
    values[:whole] = _box_muller(uniform[:whole].reshape(-1, 2, _BLOCK // 2))
    if whole < count:
        # PyTorch fills a remainder by drawing the last sixteen values anew.
        values[-_BLOCK:] = _box_muller(_uniform24(twister, _BLOCK).reshape(1, 2, _BLOCK // 2))
    return values


def _uniform24(twister: np.random.RandomState, count: int) -> Float32[np.ndarray, "N"]:
    bits = _bits32(twister, count) & 0xFFFFFF
    return bits.astype(np.float32) * np.float32(2.0**-24)


def _bits32(twister: np.random.RandomState, count: int) -> np.ndarray:
    return twister.randint(0, 2**32, size=count, dtype=np.uint32)


def _box_muller(uniform: Float[np.ndarray, "M 2 8"]) -> Float[np.ndarray, "M16"]:
    radius = np.sqrt(np.float32(-2) * np.log(np.float32(1) - uniform[:, 0]))
    angle = np.float32(2 * np.pi) * uniform[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)


def _one_by_one(twister: np.random.RandomState, count: int) -> Float32[np.ndarray, "N"]:
    """Under sixteen values PyTorch draws doubles of 53 bits, and pairs them the other way round."""
    pairs = -(-count // 2)
    uniform = _uniform53(twister, 2 * pairs).reshape(pairs, 2)
    radius = np.sqrt(-2 * np.log1p(-uniform[:, 1]))
    angle = 2 * np.pi * uniform[:, 0]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)[:count].astype(np.float32)


def _uniform53(twister: np.random.RandomState, count: int) -> Float64[np.ndarray, "N"]:
    words = _bits32(twister, 2 * count).astype(np.uint64).reshape(count, 2)
    return (((words[:, 0] << np.uint64(32)) | words[:, 1]) & np.uint64(2**53 - 1)).astype(np.float64) * 2.0**-53
