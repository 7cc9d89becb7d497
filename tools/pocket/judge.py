"""What is in an image of the pocket model: which background colour, and which of the known objects is the nearest.

Needs numpy and Pillow only: small copies of the emoji lie beside this file, in `references.npz`.

An object is judged by its pixels: image and references at half size, each reference laid over the background colour
that the image itself has, at the place and size that the prompt means, and up to two pixels beside it; the nearest is
the one with the least mean squared difference inside its box.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from tools.pocket.objects import BACKGROUNDS, things
from tools.pocket.scenes import SIZES, Scene

REFERENCES = Path(__file__).with_name("references.npz")
REFERENCE_SIZE = 32
_RING = 2
_HALF = 2
_MARGIN = 2
_SHIFTS = [(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)]

Pixels = UInt8[np.ndarray, "H W 3"]


def background_colour(image: Pixels) -> str:
    """The name of the background colour that is nearest to the median of the image's rim."""
    shade = _background(image)
    return min(BACKGROUNDS, key=lambda name: float(np.sum(np.square(shade - np.array(BACKGROUNDS[name])))))


def nearest_object(image: Pixels, *, size: int = SIZES[""], centre: tuple[int, int] = (32, 32)) -> str:
    """The short name of the emoji that the image shows at `centre`, its longest side being `size` pixels."""
    return ranking(image, size=size, centre=centre)[0][0]


def objects_of(image: Pixels, scene: Scene) -> list[str]:
    """The nearest object at each place where `scene` has one."""
    return [nearest_object(image, size=size, centre=centre) for _, size, centre in scene.spots()]


def ranking(image: Pixels, *, size: int, centre: tuple[int, int]) -> list[tuple[str, float]]:
    """Every known object with its distance, the nearest first."""
    halved = np.asarray(Image.fromarray(image).reduce(_HALF), np.float32)
    rows, columns = _box(size, centre, halved.shape[:2])
    seen, shade = halved[rows, columns], _background(image)
    distances = [
        (emoji, min(_distance(seen, layer[rows, columns], shade) for layer in _layers(emoji, size, centre)))
        for emoji in _sprites()
    ]
    return sorted(distances, key=lambda pair: pair[1])


def write_references(sprites: dict[str, Image.Image]) -> None:
    """Small copies of the emoji, for judging where the emoji themselves are not at hand."""
    small = {thing.emoji: _resized(sprites[thing.emoji], REFERENCE_SIZE) for thing in things()}
    np.savez_compressed(REFERENCES, **{name: np.asarray(image) for name, image in small.items()})  # type: ignore[arg-type]


def _background(image: Pixels) -> Float[np.ndarray, "3"]:
    inner = np.zeros(image.shape[:2], bool)
    inner[_RING:-_RING, _RING:-_RING] = True
    return np.median(image[~inner].astype(np.float32), axis=0)


def _box(size: int, centre: tuple[int, int], shape: Sequence[int]) -> tuple[slice, slice]:
    reach = size // (2 * _HALF) + _MARGIN
    x, y = (place // _HALF for place in centre)
    return slice(max(0, y - reach), min(shape[0], y + reach)), slice(max(0, x - reach), min(shape[1], x + reach))


def _distance(
    seen: Float[np.ndarray, "h w 3"], layer: Float[np.ndarray, "h w 4"], shade: Float[np.ndarray, "3"]
) -> float:
    opaque = layer[..., 3:] / 255
    return float(np.mean(np.square(seen - (layer[..., :3] * opaque + shade * (1 - opaque)))))


@cache
def _sprites() -> dict[str, Image.Image]:
    with np.load(REFERENCES) as references:
        return {name: Image.fromarray(references[name], "RGBA") for name in references.files}


@cache
def _layers(emoji: str, size: int, centre: tuple[int, int]) -> tuple[Float[np.ndarray, "32 32 4"], ...]:
    sprite = _resized(_sprites()[emoji], size // _HALF)
    return tuple(_at(sprite, centre[0] // _HALF + x, centre[1] // _HALF + y) for x, y in _SHIFTS)


def _at(sprite: Image.Image, x: int, y: int) -> Float[np.ndarray, "32 32 4"]:
    layer = Image.new("RGBA", (32, 32))
    layer.paste(sprite, (x - sprite.width // 2, y - sprite.height // 2))
    return np.asarray(layer, np.float32)


def _resized(sprite: Image.Image, size: int) -> Image.Image:
    scale = size / max(sprite.size)
    width, height = (max(1, round(side * scale)) for side in sprite.size)
    return sprite.resize((width, height), Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR)


def known_objects() -> Iterator[str]:
    """The short names of all objects."""
    return iter(_sprites())
