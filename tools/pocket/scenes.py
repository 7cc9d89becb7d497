"""Scenes to draw: which objects, how large, where, on what; drawn at random, the same for the same generator."""

from dataclasses import dataclass

import numpy as np

from tools.pocket.objects import BACKGROUNDS, Thing, held_out, things

SIDE = 64
PLACES = {
    "top left": (17, 17),
    "top right": (47, 17),
    "bottom left": (17, 47),
    "bottom right": (47, 47),
    "middle": (32, 32),
}
# Longest side in pixels of an object in the middle, and of one in a corner.
SIZES = {"small": 26, "": 46, "large": 60}
CORNER_SIZES = {"small": 20, "": 28, "large": 32}
# Where two, three and four of a thing stand, and how large they are.
LAYOUTS = {
    2: (28, ((17, 32), (47, 32))),
    3: (27, ((32, 18), (17, 47), (47, 47))),
    4: (27, ((17, 17), (47, 17), (17, 47), (47, 47))),
}
_KINDS = {"plain": 0.6, "sized": 0.09, "placed": 0.13, "counted": 0.1, "paired": 0.08}


@dataclass(frozen=True)
class Scene:
    """`size` is a key of SIZES, `place` one of PLACES or empty; a `second` thing stands to the right of the first."""

    thing: Thing
    background: str
    size: str = ""
    place: str = ""
    count: int = 1
    second: Thing | None = None

    def is_held_out(self) -> bool:
        """Whether one of its objects is never seen on its background in training."""
        return any((thing.emoji, self.background) in held_out() for thing in (self.thing, self.second) if thing)

    def spots(self) -> list[tuple[Thing, int, tuple[int, int]]]:
        """Each object, its longest side and its centre."""
        if self.second:
            size, centres = LAYOUTS[2]
            return [(self.thing, size, centres[0]), (self.second, size, centres[1])]
        if self.count > 1:
            size, centres = LAYOUTS[self.count]
            return [(self.thing, size, centre) for centre in centres]
        sizes = SIZES if self.place in ("", "middle") else CORNER_SIZES
        return [(self.thing, sizes[self.size], PLACES[self.place or "middle"])]


def random_scene(draw: np.random.Generator) -> Scene:
    """A scene that training may see."""
    while True:
        scene = _any_scene(draw)
        if not scene.is_held_out():
            return scene


def _any_scene(draw: np.random.Generator) -> Scene:
    thing, other = (things()[index] for index in draw.integers(len(things()), size=2))
    background = str(draw.choice(list(BACKGROUNDS)))
    sized, place = str(draw.choice(["small", "large"])), str(draw.choice(list(PLACES)))
    match draw.choice(list(_KINDS), p=list(_KINDS.values())):
        case "sized":
            return Scene(thing, background, size=sized)
        case "placed":
            return Scene(thing, background, place=place, size=str(draw.choice(["", "", "small", "large"])))
        case "counted":
            return Scene(thing, background, count=int(draw.integers(2, 5)))
        case "paired" if thing != other:
            return Scene(thing, background, second=other)
    return Scene(thing, background)
