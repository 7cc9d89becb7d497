"""The watermark: unseen, and read back by the package that diffusers marks with."""

import io

import numpy as np
import pytest
from PIL import Image

from promptmill.producer.job import Job
from promptmill.worker.encode import encode_png
from promptmill.worker.watermark import BITS, MESSAGE, bits_in, is_marked, mark
from tests.worker.images import smooth_image

SIZES = [(256, 256), (264, 300), (515, 261), (1024, 1024)]


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2)))


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_all_bits_come_back_from_the_file(height: int, width: int):
    plain = smooth_image(height, width)
    assert not is_marked(plain)
    file = encode_png(mark(plain), Job(prompt="p", width=256, height=256))
    with Image.open(io.BytesIO(file)) as image:
        read = np.asarray(image)
    assert is_marked(read)
    assert int("".join(str(int(bit)) for bit in bits_in(read)), 2) == MESSAGE


@pytest.mark.parametrize("grey", [0, 60, 128, 200])
def test_a_smooth_image_carries_it_too(grey: int):
    assert is_marked(mark(np.full((256, 256, 3), grey, np.uint8)))


def test_a_jpeg_of_good_quality_keeps_it():
    file = io.BytesIO()
    Image.fromarray(mark(smooth_image(512, 512))).save(file, "JPEG", quality=95, subsampling=0)
    assert np.mean(bits_in(np.asarray(Image.open(file))) == BITS) > 0.9


def test_nobody_sees_it():
    for seed in range(3):
        plain = smooth_image(512, 512, seed)
        assert psnr(mark(plain), plain) > 35


def test_few_pixels_change_and_brightness_hardly():
    plain = smooth_image(256, 256)
    marked = mark(plain)
    assert np.mean((marked != plain).any(axis=-1)) <= 4 / 64
    luma = [image @ np.array([0.299, 0.587, 0.114]) for image in (plain, marked)]
    assert np.abs(luma[0] - luma[1]).max() < 2.5


def test_strips_that_fill_no_block_are_left_alone():
    plain = smooth_image(261, 270)
    marked = mark(plain)
    np.testing.assert_array_equal(marked[256:], plain[256:])
    np.testing.assert_array_equal(marked[:, 264:], plain[:, 264:])


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_the_package_reads_ours(height: int, width: int):
    """pip install --no-deps invisible-watermark; it needs opencv-python-headless and PyWavelets beside torch."""
    imwatermark = pytest.importorskip("imwatermark")
    bgr = np.ascontiguousarray(mark(smooth_image(height, width))[..., ::-1])
    found = imwatermark.WatermarkDecoder("bits", len(BITS)).decode(bgr, "dwtDct")
    np.testing.assert_array_equal(found, BITS == 1)
