"""The judge tells objects and colours apart, and sees when they are wrong."""

import numpy as np
import pytest
from PIL import Image

from tools.pocket import judge
from tools.pocket.images import Sprites, compose
from tools.pocket.objects import BACKGROUNDS, things
from tools.pocket.scenes import Scene, random_scene


@pytest.fixture(scope="module")
def sprites() -> Sprites:
    """The small copies that the judge has; the emoji themselves are not in the repository."""
    with np.load(judge.REFERENCES) as references:
        return {name: Image.fromarray(references[name]) for name in references.files}


def test_there_is_a_reference_of_every_object() -> None:
    assert list(judge.known_objects()) == [thing.emoji for thing in things()]


def test_true_images_are_told_apart(sprites: Sprites) -> None:
    draw = np.random.default_rng(0)
    for scene in [random_scene(draw) for _ in range(20)]:
        image = compose(scene, sprites, draw)
        assert judge.background_colour(image) == scene.background
        assert judge.objects_of(image, scene) == [thing.emoji for thing, _, _ in scene.spots()]


def test_noise_and_softness_do_not_mislead_it(sprites: Sprites) -> None:
    draw = np.random.default_rng(1)
    for thing in things()[::12]:
        image = compose(Scene(thing, "pink"), sprites, draw)
        soft = np.asarray(Image.fromarray(image).resize((24, 24)).resize((64, 64)), np.float32)
        noisy = np.clip(soft + draw.normal(scale=12, size=soft.shape), 0, 255).astype(np.uint8)
        assert judge.nearest_object(noisy) == thing.emoji


@pytest.mark.parametrize("colour", BACKGROUNDS)
def test_background_is_told_beside_a_large_object(sprites: Sprites, colour: str) -> None:
    assert judge.background_colour(compose(Scene(things()[0], colour, size="large"), sprites)) == colour


def test_another_object_is_not_taken_for_it(sprites: Sprites) -> None:
    cat, dog = (next(thing for thing in things() if thing.emoji == name) for name in ("cat", "dog"))
    assert judge.objects_of(compose(Scene(dog, "yellow"), sprites), Scene(cat, "yellow")) == ["dog"]
