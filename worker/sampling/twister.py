"""PyTorch's CPU noise, continued on the device: what a stochastic sampler adds at each step.

The generator is MT19937 (Matsumoto and Nishimura 1998), x[m] = x[m-227] ^ G x[m], where G takes the top bit of
x[m-624] and the rest of x[m-623] through a matrix over GF(2). Word after word, or 227 at a time, is hundreds of
small steps for one draw; so the words known are doubled instead. The delay by 227 commutes with G, and in
characteristic 2 the square of a sum is the sum of the squares, so that x[m] = x[m-227n] ^ G^n x[m] too for every
n that is a power of two: 623n words at once out of the 624n before them.

The state is the next 624 words before tempering (`noise.start_generator` makes it): no position, all slices static.
"""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, UInt32

from promptmill.worker.errors import RequestError
from promptmill.worker.sampling.noise import BLOCK, STATE_WORDS

_LAG = 227
_TWIST = 0x9908B0DF
# Beyond this power of G its matrices fill up, and work costs more than the steps that it saves.
_MOST_AT_ONCE = 16

# A power of G but for its delay of 623n: by further delay, the image of each of the 32 bits.
_Matrices = dict[int, tuple[int, ...]]


def draw(
    state: UInt32[Array, "B 624"], height: int, width: int, channels: int
) -> tuple[UInt32[Array, "B 624"], Float32[Array, "B H W C"]]:
    """The state after, and what `torch.randn((1, C, H, W), generator=...)` gives next, turned to channels last.

    Up to the last digits of logarithm and cosine (2e-6). RequestError for fewer than sixteen values: PyTorch draws
    those as doubles, one by one, which a device without 64 bits cannot.
    """
    count = channels * height * width
    if count < BLOCK:
        raise RequestError(
            f"noise of {height} x {width} x {channels} has {count} values, "
            f"but a stochastic sampler needs latents of at least {BLOCK}"
        )
    remade = BLOCK if count % BLOCK else 0
    words = _extend(state, STATE_WORDS + count + remade)
    flat = _normal(_temper(words[:, : count + remade]), count)
    noise = flat.reshape(-1, channels, height, width).transpose(0, 2, 3, 1)
    return words[:, count + remade :], noise


def _extend(words: UInt32[Array, "B N"], length: int) -> UInt32[Array, "B M"]:
    while words.shape[1] < length:
        words = jnp.concatenate([words, _next(words, length - words.shape[1])], axis=1)
    return words


def _next(words: UInt32[Array, "B N"], wanted: int) -> UInt32[Array, "B W"]:
    """The words after, at most `wanted`: as many as the known ones determine in one step."""
    power = _power(words.shape[1])
    lag, width = _LAG * power, min(wanted, 623 * power)
    twisted = _twist(words, power, width)
    chunk, chunks = words[:, -lag:], []
    for start in range(0, width, lag):
        part = twisted[:, start : start + lag]
        chunk = chunk[:, : part.shape[1]] ^ part
        chunks.append(chunk)
    return jnp.concatenate(chunks, axis=1)


def _power(known: int) -> int:
    return min(_MOST_AT_ONCE, 1 << ((known // STATE_WORDS).bit_length() - 1))


def _twist(words: UInt32[Array, "B N"], power: int, width: int) -> UInt32[Array, "B W"]:
    """G to that power, on what the next `width` words need."""
    terms = []
    for delay, images in _matrices(power).items():
        start = words.shape[1] - 623 * power - delay
        terms.append(_apply(images, words[:, start : start + width]))
    return _xor(terms)


def _apply(images: tuple[int, ...], words: UInt32[Array, "B W"]) -> UInt32[Array, "B W"]:
    """A 32 x 32 matrix over GF(2) times each word. Bits that only move take one shift together."""
    terms = []
    for shift, mask in _moves(images).items():
        terms.append((words & np.uint32(mask)) >> np.uint32(shift))
    for bit, image in enumerate(images):
        if image and not _is_move(bit, image):
            terms.append(((words >> np.uint32(bit)) & np.uint32(1)) * np.uint32(image))
    return _xor(terms)


def _moves(images: tuple[int, ...]) -> dict[int, int]:
    """Bits that move down, as a mask by how far."""
    masks: dict[int, int] = {}
    for bit, image in enumerate(images):
        if _is_move(bit, image):
            shift = bit - image.bit_length() + 1
            masks[shift] = masks.get(shift, 0) | 1 << bit
    return masks


def _is_move(bit: int, image: int) -> bool:
    return image.bit_count() == 1 and image.bit_length() <= bit + 1


def _xor(terms: list[UInt32[Array, "B W"]]) -> UInt32[Array, "B W"]:
    total, *rest = terms
    for term in rest:
        total = total ^ term
    return total


@lru_cache
def _matrices(power: int) -> _Matrices:
    if power == 1:
        moved = (_TWIST, *(1 << bit for bit in range(31)))
        return {0: (*moved[:31], 0), 1: (*(0,) * 31, moved[31])}
    root = _matrices(power // 2)
    square: _Matrices = {}
    for delay, outer in root.items():
        for more, inner in root.items():
            images = square.get(delay + more, (0,) * 32)
            square[delay + more] = tuple(a ^ _image(outer, b) for a, b in zip(images, inner, strict=True))
    return {delay: images for delay, images in square.items() if any(images)}


def _image(images: tuple[int, ...], word: int) -> int:
    total = 0
    for bit, image in enumerate(images):
        if word >> bit & 1:
            total ^= image
    return total


def _temper(words: UInt32[Array, "B N"]) -> UInt32[Array, "B N"]:
    words = words ^ (words >> np.uint32(11))
    words = words ^ ((words << np.uint32(7)) & np.uint32(0x9D2C5680))
    words = words ^ ((words << np.uint32(15)) & np.uint32(0xEFC60000))
    return words ^ (words >> np.uint32(18))


def _normal(bits: UInt32[Array, "B N"], count: int) -> Float32[Array, "B count"]:
    """Box-Muller in PyTorch's order: see `noise.randn`, which this must follow."""
    uniform = (bits & np.uint32(0xFFFFFF)).astype(jnp.float32) * np.float32(2.0**-24)
    whole = count - count % BLOCK
    values = _box_muller(uniform[:, :whole])
    if whole == count:
        return values
    return jnp.concatenate([values, _box_muller(uniform[:, count:])], axis=1)[:, _kept(count)]


def _kept(count: int) -> np.ndarray:
    whole = count - count % BLOCK
    return np.r_[: count - BLOCK, whole : whole + BLOCK]


def _box_muller(uniform: Float32[Array, "B N"]) -> Float32[Array, "B N"]:
    pairs = uniform.reshape(uniform.shape[0], -1, 2, BLOCK // 2)
    radius = jnp.sqrt(np.float32(-2) * jnp.log(np.float32(1) - pairs[:, :, 0]))
    angle = np.float32(2 * np.pi) * pairs[:, :, 1]
    return jax.lax.collapse(jnp.stack([radius * jnp.cos(angle), radius * jnp.sin(angle)], axis=2), 1)
