"""The mark that a model made an image goes along into every format of a dataset."""

import io

import numpy as np
import pytest
from PIL import Image

from promptmill.dataset.options import PackOptions
from promptmill.dataset.transcoder import Transcoder
from promptmill.producer.job import Job
from promptmill.producer.marks import is_ai_made
from promptmill.worker.encode import encode_png


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        PackOptions(),
        PackOptions(resize="32"),
        PackOptions(image_format="webp"),
        PackOptions(image_format="webp", quality=80),
        PackOptions(image_format="jpeg"),
    ],
    ids=["png", "resized", "webp", "lossy webp", "jpeg"],
)
def test_the_mark_goes_along(options: PackOptions, marked: bool):
    data = encode_png(np.full((64, 64, 3), 127, np.uint8), Job(prompt="a cat", width=64, height=64), xmp=marked)
    with Image.open(io.BytesIO(Transcoder(options)(data))) as image:
        assert is_ai_made(image.info.get("xmp", b"")) is marked
