"""Words for a scene: one of many ways to say it, the same for the same generator."""

from itertools import pairwise
from typing import Any

import numpy as np

from tools.pocket.objects import BACKGROUNDS, things
from tools.pocket.scenes import PLACES, Scene

_NUMBERS = {2: "two", 3: "three", 4: "four"}
_COLOURS = {"gray": ("gray", "grey"), "purple": ("purple", "violet")}
_SIZES = {"small": ("small", "small", "little", "tiny"), "large": ("large", "large", "big", "huge")}
_PLACES = {
    "top left": ("top left", "top left", "upper left", "top left corner"),
    "top right": ("top right", "top right", "upper right", "top right corner"),
    "bottom left": ("bottom left", "bottom left", "lower left", "bottom left corner"),
    "bottom right": ("bottom right", "bottom right", "lower right", "bottom right corner"),
    "middle": ("middle", "middle", "center", "centre"),
}
# The first is what prompts are mostly like; it comes as often as all others together.
_PLAIN = (
    "{thing} on a {colour} background",
    "{thing} on {colour}",
    "{thing}, {colour} background",
    "{colour} background, {thing}",
    "{thing} in front of a {colour} background",
    "an image of {thing} on a {colour} background",
)
_PLACED = (
    "{thing} in the {place} of a {colour} background",
    "{thing}, {place}, on {colour}",
    "{thing} in the {place}, {colour} background",
    "{thing} in the {place} on a {colour} background",
)


def caption(scene: Scene, draw: np.random.Generator) -> str:
    """What somebody might type for `scene`."""
    templates = _PLACED if scene.place else _PLAIN
    template = templates[0] if draw.random() < 0.5 else _one(templates, draw)
    text = template.format(
        thing=_thing(scene, draw),
        colour=_one(_COLOURS.get(scene.background, (scene.background,)), draw),
        place=_one(_PLACES[scene.place], draw) if scene.place else "",
    )
    return _mend_articles(text)


def plain_caption(scene: Scene) -> str:
    """The first way to say it, with the first names: what the evaluation asks for."""
    template = (_PLACED if scene.place else _PLAIN)[0]
    thing = _phrase(scene, [pair[0] for pair in (_names(scene))], scene.size)
    return _mend_articles(template.format(thing=thing, colour=scene.background, place=scene.place))


def words() -> list[str]:
    """Every word that a caption may hold, each once: the vocabulary."""
    texts = [*BACKGROUNDS, "grey violet a an and", *_NUMBERS.values()]
    texts += [word for group in (*_SIZES.values(), *_PLACES.values()) for word in group]
    texts += [name for thing in things() for pair in thing.names for name in pair]
    texts += [template.format(thing="", colour="", place="") for template in (*_PLAIN, *_PLACED)]
    every = " ".join(texts).replace(",", " , ").split()
    return list(dict.fromkeys(every))


def _names(scene: Scene) -> list[tuple[tuple[str, str], ...]]:
    return [thing.names for thing in (scene.thing, scene.second) if thing]


def _thing(scene: Scene, draw: np.random.Generator) -> str:
    # The first name is the one that tells it from its likes, and half of all captions have it.
    names = [group[0] if draw.random() < 0.5 else _one(group, draw) for group in _names(scene)]
    size = _one(_SIZES[scene.size], draw) if scene.size else ""
    return _phrase(scene, names, size, article=draw.random() < 0.8)


def _phrase(scene: Scene, names: list[tuple[str, str]], size: str, *, article: bool = True) -> str:
    if scene.count > 1:
        return f"{_NUMBERS[scene.count]} {names[0][1]}"
    first = "a " if article else ""
    return " and ".join(f"{first}{size} {singular}" if size else f"{first}{singular}" for singular, _ in names)


def _mend_articles(text: str) -> str:
    parts = text.split()
    for place, (word, after) in enumerate(pairwise(parts)):
        if word == "a" and after[0] in "aeiou" and not after.startswith("uni"):
            parts[place] = "an"
    return " ".join(parts)


def _one(options: tuple[Any, ...], draw: np.random.Generator) -> Any:
    return options[draw.integers(len(options))]


assert set(_PLACES) == set(PLACES)
