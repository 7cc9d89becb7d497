"""The gallery's page finds the images of a run in other formats, in a real Chromium."""

import io
import threading
import urllib.request
from typing import Any

import pytest
from PIL import Image

from promptmill.dataset.gallery.serve import make_server
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
    assert page.locator("#full figure img").get_attribute("src").split("?")[0].endswith(f".{encoding.extension}")


@pytest.mark.parametrize("encoding", [Encoding("jxl")], ids=str)
def test_a_jpeg_xl_is_shown_or_named(run: Run, seen: Any, encoding: Encoding):
    write_gallery(run.output, run.plan, {FAILED: "the dog ate it"}, name="cats")
    page = seen.open(run.folder / INDEX)
    page.locator("#image-3").click()
    shown = "document.querySelector('#full figure img')?.naturalWidth == 64"
    page.wait_for_function(f"{shown} || document.querySelector('#full figure .reason a')")  # older Chromiums know none
    damaged = run.folder / run.plan.image_name(next(iter(run.plan.at([5]))).id)
    damaged.write_bytes(damaged.read_bytes()[:40])
    page.goto("about:blank")
    page.goto(f"{(run.folder / INDEX).as_uri()}#i=5")
    link = page.locator("#full figure .reason a")
    link.wait_for()
    assert link.get_attribute("href").split("?")[0].endswith(".jxl")
    assert "cannot be shown: it is damaged, or this browser" in page.locator("#full figure .reason").text_content()


@pytest.mark.parametrize("encoding", [Encoding("jxl")], ids=str)
def test_the_server_gives_a_webp_to_browsers_without_jpeg_xl(run: Run, encoding: Encoding):
    name = run.plan.image_name(next(iter(run.plan.at([3]))).id)
    own = run.output.get(name)
    with make_server({"cats": run.output}, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for accept, kind in (
            ("image/avif,image/webp,*/*;q=0.8", "image/webp"),
            ("image/webp,image/jxl", "image/jxl"),
            ("*/*", "image/jxl"),
        ):
            url = f"http://127.0.0.1:{server.server_address[1]}/cats/{name}?abc"
            with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": accept}), timeout=60) as answer:
                data = answer.read()
                assert (answer.headers["Content-Type"], answer.headers["Vary"]) == (kind, "Accept")
            assert (data == own) == (kind == "image/jxl")
            with Image.open(io.BytesIO(data)) as image:
                assert (image.get_format_mimetype() or "image/jxl", image.size) == (kind, (64, 64))
        server.shutdown()
