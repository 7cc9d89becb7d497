"""The folder that ships: its size, its card, that worker and PyTorch load it, and that it draws what is asked."""

from pathlib import Path

import numpy as np
import pytest

from tools.pocket import judge
from tools.pocket.captions import plain_caption
from tools.pocket.evaluate import GUIDANCE, STEPS, Renderer, held_out_scenes
from tools.pocket.export import DEFAULT_FOLDER
from tools.pocket.objects import OBJECTS_FILE, things

MOST_BYTES = 12_000_000


def test_it_is_small_and_has_a_card() -> None:
    assert 1_000_000 < sum(file.stat().st_size for file in DEFAULT_FOLDER.rglob("*") if file.is_file()) <= MOST_BYTES
    card = (DEFAULT_FOLDER / "README.md").read_text(encoding="utf-8")
    for said in ("Noto", "Apache", "emoji-datasource-google", f"{STEPS} Euler steps", f"{len(things())} emoji"):
        assert said in card
    assert OBJECTS_FILE.is_file()


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(DEFAULT_FOLDER)


@pytest.mark.slow
def test_backgrounds_and_objects_of_held_out_pairs(renderer: Renderer) -> None:
    """A sample of the card's 500: chance would be a tenth and a hundredth."""
    scenes = held_out_scenes(20)
    images = renderer([renderer.request(plain_caption(scene), seed) for seed, scene in enumerate(scenes)])
    backgrounds = [judge.background_colour(i) == s.background for i, s in zip(images, scenes, strict=True)]
    objects = [judge.nearest_object(i) == s.thing.emoji for i, s in zip(images, scenes, strict=True)]
    assert np.mean(backgrounds) >= 0.9
    assert np.mean(objects) >= 0.8


@pytest.mark.slow
def test_the_same_image_from_pytorch(renderer: Renderer) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    from tools.pocket.evaluate import agreement

    assert agreement(renderer, Path(DEFAULT_FOLDER), held_out_scenes(2)) >= 40
    assert GUIDANCE > 1
