"""The gallery's page finds the images of a run in other formats, in a real Chromium."""

from typing import Any

import pytest

from promptmill.dataset.gallery.writer import INDEX, write_gallery
from promptmill.producer.image_formats import Encoding
from tests.dataset.conftest import FAILED, Run


@pytest.fixture(params=["webp", "jpeg"])
def encoding(request: pytest.FixtureRequest) -> Encoding:
    return Encoding(request.param)


def test_an_image_is_shown_in_full(run: Run, seen: Any, encoding: Encoding):
    write_gallery(run.output, run.plan, {FAILED: "the dog ate it"}, name="cats")
    page = seen.open(run.folder / INDEX)
    page.locator("#image-3").click()
    page.locator("#full figure img").wait_for()
    page.wait_for_function("document.querySelector('#full figure img').naturalWidth == 64")
    assert page.locator("#full figure img").get_attribute("src").endswith(f".{encoding.extension}")
