"""Prompts in, and the right things in the images out: through Redis, a worker and a bucket, with the pocket model."""

import io
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from promptmill.producer.layout import image_name
from promptmill.producer.outputs.open import open_output
from tests.fake_gcs import FakeGcs
from tests.farm import Farm, farm_of
from tests.plans import read_jobs
from tools.pocket.judge import background_colour, ranking
from tools.pocket.scenes import SIZES

pytestmark = pytest.mark.slow

# Things that the model draws well, by the emoji's name; what it draws less well is its card's to tell.
SHOWN = {
    "a red apple on a blue background": ("apple", "blue"),
    "a red heart on a white background": ("heart", "white"),
    "a panda on a green background": ("panda_face", "green"),
    "a green apple on a gray background": ("green_apple", "gray"),
    "a soccer ball on a red background": ("soccer", "red"),
    "a smiley face on a purple background": ("smiley", "purple"),
}
AMONG = 5  # of the 84 known things, by pixels, the right one is among the nearest five


@pytest.fixture
def farm(client: object, redis_url: str, tmp_path: Path) -> Iterator[Farm]:
    with farm_of(redis_url, tmp_path) as farm:
        farm.environ["PROMPTMILL_MODEL"] = "pocket"
        yield farm


def wrong_images(images: Mapping[str, np.ndarray]) -> list[str]:
    """The prompts whose images do not show what they say."""
    return [prompt for prompt, image in images.items() if not shows(image, *SHOWN[prompt])]


def shows(image: np.ndarray, thing: str, colour: str) -> bool:
    nearest = [name for name, _ in ranking(image, size=SIZES[""], centre=(32, 32))[:AMONG]]
    return background_colour(image) == colour and thing in nearest


def test_the_images_in_the_bucket_show_what_the_prompts_say(
    farm: Farm, fake_gcs: FakeGcs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake_gcs.url)
    farm.environ["STORAGE_EMULATOR_HOST"] = fake_gcs.url
    bucket = fake_gcs.create_bucket("pocket")
    farm.start_worker()
    farm.submit(list(SHOWN), bucket, "r")
    run = farm.wait_until_finished("r")
    assert (run["done"], run["failed"]) == (len(SHOWN), 0)
    (tmp_path / "again.txt").write_text("\n".join(SHOWN))
    output = open_output(bucket).child("r")
    images = {
        job.prompt: np.asarray(Image.open(io.BytesIO(output.get(image_name(job.id)))))
        for job in read_jobs([tmp_path / "again.txt"], {})
    }
    assert wrong_images(images) == []
    for first, second in zip(SHOWN, list(SHOWN)[1:], strict=False):  # swapped, they are found out
        swapped = {**images, first: images[second], second: images[first]}
        assert wrong_images(swapped) == [first, second]
