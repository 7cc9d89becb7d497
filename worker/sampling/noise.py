"""The noise that a seed means: what PyTorch's CPU generator draws for it.

`torch.randn(shape, generator=torch.Generator().manual_seed(seed))` in float32, to the last digits of the
logarithm and cosine; so a seed gives the image that it gives in diffusers. Source: the MT19937 paper
(Matsumoto and Nishimura 1998), Box-Muller, and how PyTorch's `DistributionTemplates.h` puts the two together.
"""

import numpy as np
from jaxtyping import Float, Float32, Float64, UInt32

# PyTorch draws in blocks of 16: eight pairs for Box-Muller.
BLOCK = 16
# MT19937's.
STATE_WORDS = 624


def draw_noise(seed: int, height: int, width: int, channels: int) -> Float32[np.ndarray, "H W C"]:
    """Standard normal noise of one image's latents. Drawn channels first, as diffusers does, then turned."""
    return start_generator(seed, height, width, channels)[0]


def start_generator(
    seed: int, height: int, width: int, channels: int
) -> tuple[Float32[np.ndarray, "H W C"], UInt32[np.ndarray, "624"]]:
    """That noise, and the generator after it as `twister.draw` takes it: its next 624 words, before tempering."""
    twister = _seeded(seed)
    flat = _randn(twister, channels * height * width)
    noise = np.ascontiguousarray(flat.reshape(channels, height, width).transpose(1, 2, 0))
    return noise, _next_words(twister)


def randn(seed: int, count: int) -> Float32[np.ndarray, " N"]:
    """The first `count` values of PyTorch's CPU `randn` for `seed`, an integer of which 32 bits count."""
    return _randn(_seeded(seed), count)


def _seeded(seed: int) -> np.random.RandomState:
    return np.random.RandomState(seed & 0xFFFFFFFF)


def _next_words(twister: np.random.RandomState) -> UInt32[np.ndarray, "624"]:
    """What is left of the words that numpy holds, and then the first of those that it makes after them."""
    held, position = _words(twister)
    _bits32(twister, STATE_WORDS)
    return np.concatenate([held[position:], _words(twister)[0][:position]])


def _words(twister: np.random.RandomState) -> tuple[UInt32[np.ndarray, "624"], int]:
    state = twister.get_state(legacy=False)["state"]
    return state["key"], int(state["pos"])


def _randn(twister: np.random.RandomState, count: int) -> Float32[np.ndarray, " N"]:
    if count < BLOCK:
        return _one_by_one(twister, count)
    uniform = _uniform24(twister, count)
    values = np.empty(count, np.float32)
    whole = count - count % BLOCK
    values[:whole] = _box_muller(uniform[:whole].reshape(-1, 2, BLOCK // 2))
    if whole < count:
        # PyTorch fills a remainder by drawing the last sixteen values anew.
        values[-BLOCK:] = _box_muller(_uniform24(twister, BLOCK).reshape(1, 2, BLOCK // 2))
    return values


def _uniform24(twister: np.random.RandomState, count: int) -> Float32[np.ndarray, " N"]:
    bits = _bits32(twister, count) & 0xFFFFFF
    return bits.astype(np.float32) * np.float32(2.0**-24)


def _bits32(twister: np.random.RandomState, count: int) -> np.ndarray:
    return twister.randint(0, 2**32, size=count, dtype=np.uint32)


def _box_muller(uniform: Float[np.ndarray, "M 2 8"]) -> Float[np.ndarray, " M16"]:
    radius = np.sqrt(np.float32(-2) * np.log(np.float32(1) - uniform[:, 0]))
    angle = np.float32(2 * np.pi) * uniform[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)


def _one_by_one(twister: np.random.RandomState, count: int) -> Float32[np.ndarray, " N"]:
    """Under sixteen values PyTorch draws doubles of 53 bits, and pairs them the other way round."""
    pairs = -(-count // 2)
    uniform = _uniform53(twister, 2 * pairs).reshape(pairs, 2)
    radius = np.sqrt(-2 * np.log1p(-uniform[:, 1]))
    angle = 2 * np.pi * uniform[:, 0]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)[:count].astype(np.float32)


def _uniform53(twister: np.random.RandomState, count: int) -> Float64[np.ndarray, " N"]:
    words = _bits32(twister, 2 * count).astype(np.uint64).reshape(count, 2)
    return (((words[:, 0] << np.uint64(32)) | words[:, 1]) & np.uint64(2**53 - 1)).astype(np.float64) * 2.0**-53
