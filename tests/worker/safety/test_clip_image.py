"""Images are made small for CLIP as Pillow makes them small."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from promptmill.worker.safety.clip_image import MEAN, STD, clip_pixels, resize

SIZES = [(64, 64, 28, 28), (50, 93, 28, 52), (53, 31, 47, 28), (20, 30, 28, 42), (28, 40, 28, 28), (40, 28, 28, 28)]


def extremes(height: int, width: int) -> np.ndarray:
    """Black and white pixels at random, where a bicubic kernel overshoots most; and grey noise."""
    rng = np.random.default_rng(height)
    hard = np.where(rng.random((1, height, width, 3)) < 0.5, 0, 255)
    return np.concatenate([hard, rng.integers(0, 256, (1, height, width, 3))]).astype(np.uint8)


@pytest.mark.parametrize(("height", "width", "new_height", "new_width"), SIZES)
def test_resizing_is_pillows_bicubic_to_the_last_bit(height: int, width: int, new_height: int, new_width: int):
    images = extremes(height, width)
    size = (new_width, new_height)
    wanted = [np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)) for image in images]
    np.testing.assert_array_equal(resize(jnp.asarray(images), new_height, new_width), np.stack(wanted))


def test_the_middle_square_is_kept_and_normalised():
    images = extremes(30, 61)
    wanted = (images[:, 1:29, 16:44] / 255 - MEAN) / STD
    small = clip_pixels(jnp.asarray(images[:, 1:29]), 28)
    assert small.shape == (2, 28, 28, 3)
    np.testing.assert_allclose(small, wanted, atol=1e-6)
