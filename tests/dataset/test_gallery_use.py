"""The gallery as people use it: search, filters, X/Y grids, two runs, keys, a phone; in a real Chromium."""

import threading
from itertools import product
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from promptmill.dataset.gallery.beside import folder_beside, served_under
from promptmill.dataset.gallery.serve import make_server, page_url
from promptmill.producer.outputs.open import open_output
from promptmill.producer.plan_files import load_plan
from tests.dataset.galleries import Watched, colour, gallery_of, make_run

pytestmark = pytest.mark.slow

PROMPTS = ("a red apple", "a blue cup", "a green star", "a yellow car")
ROWS = [
    {"prompt": prompt, "num_inference_steps": steps, "guidance_scale": scale}
    for prompt, steps, scale in product(PROMPTS, (4, 8, 16), (1.0, 7.5))
]
LABELS = {index: {"class": row["prompt"].split()[-1], "seed": index % 2} for index, row in enumerate(ROWS)}  # type: ignore[attr-defined]
FAILED = 5


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs of the same prompts, each with the other beside it."""
    parent = tmp_path_factory.mktemp("out")
    one = make_run(parent, "one", ROWS, LABELS, without=[FAILED])
    other = make_run(parent, "other", [{**row, "sampler": "ddim"} for row in ROWS[:-1]], LABELS)
    scores = {"aesthetic": [index / 10 for index in range(len(ROWS))]}
    return (
        gallery_of(one, {FAILED: "NaN"}, scores=scores, compare=[{"run": "other", "at": folder_beside(one, other)}]),
        gallery_of(other, compare=[{"run": "one", "at": folder_beside(other, one)}]),
    )


def shown(page: Page) -> list[int]:
    """The indexes in the grid, in order."""
    cells = page.locator(".cell:not([hidden])").evaluate_all(
        "cells => cells.map(cell => [cell.position, cell.id]).sort((a, b) => a[0] - b[0]).map(([, id]) => id)"
    )
    return [int(cell.removeprefix("image-")) for cell in cells]


def search(page: Page, query: str) -> list[int]:
    page.fill("#query", query)
    page.wait_for_function(
        "query => new URLSearchParams(location.hash.slice(1)).get('q') === (query || null)", arg=query
    )
    return shown(page)


def indexes(holds) -> list[int]:
    return [index for index, row in enumerate(ROWS) if holds(index, row)]


SEARCHES = {
    "apple": lambda i, r: "apple" in r["prompt"],
    "APPLE a": lambda i, r: "apple" in r["prompt"],
    '"red apple"': lambda i, r: "red apple" in r["prompt"],
    '"apple red"': lambda i, r: False,
    "-apple -car": lambda i, r: "apple" not in r["prompt"] and "car" not in r["prompt"],
    "steps>=8": lambda i, r: r["num_inference_steps"] >= 8,
    "num_inference_steps=4": lambda i, r: r["num_inference_steps"] == 4,
    "guidance<5 cup": lambda i, r: r["guidance_scale"] < 5 and "cup" in r["prompt"],
    "guidance_scale=7.50": lambda i, r: r["guidance_scale"] == 7.5,
    "state:failed": lambda i, r: i == FAILED,
    "-state=done": lambda i, r: i == FAILED,
    "class=cup": lambda i, r: "cup" in r["prompt"],
    "class:u": lambda i, r: "cup" in r["prompt"],
    "class!=cup": lambda i, r: "cup" not in r["prompt"],
    "label.seed=1": lambda i, r: i % 2 == 1,
    "seed=1": lambda i, r: i == 1,
    "score.aesthetic>2 -car": lambda i, r: False,
    "aesthetic>=1.2 aesthetic<1.5": lambda i, r: i in (12, 13, 14),
    "index=7": lambda i, r: i == 7,
    "http://example.org": lambda i, r: False,
    "": lambda i, r: True,
}


def test_searches_find_what_they_mean(runs: tuple[Path, Path], seen: Watched):
    page = seen.open(runs[0])
    for query, holds in SEARCHES.items():
        assert search(page, query) == indexes(holds), query
    assert page.locator("#told").text_content() == "24 images"


def test_filters_are_clicked_and_taken_back(runs: tuple[Path, Path], seen: Watched):
    page = seen.open(runs[0])
    page.click("#filters")
    page.locator("details[data-field=class] summary").click()
    page.locator("details[data-field=class] button", has_text="star").click()
    assert page.input_value("#query") == "class=star" and shown(page) == list(range(12, 18))
    page.locator("details[data-field=class] button", has_text="star").click()
    assert page.input_value("#query") == "" and len(shown(page)) == 24
    assert page.locator("details[data-field=state] button").all_text_contents() == ["done23", "failed1"]


def test_an_address_leads_to_the_same_view(runs: tuple[Path, Path], seen: Watched):
    page = seen.open(runs[0], "#q=cup&i=8")
    assert page.locator(".head b").text_content() == "8"
    page.keyboard.press("Escape")
    assert shown(page) == list(range(6, 12))


def test_all_of_it_goes_by_keyboard(runs: tuple[Path, Path], seen: Watched):
    page = seen.open(runs[0])
    page.locator("#grid").focus()
    for key in ("End", "Home", "ArrowRight", "ArrowRight", "ArrowLeft", "ArrowDown"):
        page.keyboard.press(key)
    columns = page.evaluate("getComputedStyle(document.querySelector('.cell')).width") and page.locator(
        "[aria-selected=true]"
    ).evaluate("cell => cell.position - 1")
    page.keyboard.press("Enter")
    assert page.locator("#full .head b").text_content() == str(columns + 1)
    page.keyboard.press("ArrowRight")
    page.locator("#full .head b", has_text=str(columns + 2)).wait_for()
    page.keyboard.press("Escape")
    assert not page.locator("#full").is_visible()
    assert page.locator("[aria-selected=true]").get_attribute("id") == f"image-{columns + 2}"
    page.keyboard.press("/")
    page.keyboard.type("star")
    page.wait_for_function("() => location.hash.includes('star')")
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    assert page.locator("#keys").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("f")
    assert page.locator("#facets").is_visible()


def middle_of(page: Page, selector: str) -> tuple[int, ...]:
    """The colour that is drawn in the middle of an element."""
    import io

    from PIL import Image

    with Image.open(io.BytesIO(page.locator(selector).first.screenshot())) as image:
        found = image.convert("RGB").getpixel((image.width // 2, image.height // 2))
    assert isinstance(found, tuple)
    return tuple(map(int, found))


def drawn(page: Page, selector: str, index: int) -> None:
    """Wait until an element shows the image of an index."""
    page.wait_for_function(
        "selector => document.querySelector(selector)?.style.backgroundImage", arg=f"{selector} .image"
    )
    found = middle_of(page, selector)
    assert max(abs(a - b) for a, b in zip(found, colour(index), strict=True)) < 14, (index, found)


def test_thumbnails_are_those_of_their_indexes(runs: tuple[Path, Path], seen: Watched):
    page = seen.open(runs[0])
    for index in (0, 1, 12, 23):
        drawn(page, f"#image-{index} .thumb", index)
    search(page, "class=star")
    drawn(page, "#image-13 .thumb", 13)


def test_swept_parameters_make_an_x_y_grid(runs: tuple[Path, Path], seen: Watched):
    page = seen.open(runs[0], "#q=cup&sweep=1&x=guidance_scale&y=num_inference_steps")
    assert page.locator("#sweep thead th").all_text_contents()[1:] == ["1", "7.5"]
    assert page.locator("#sweep tbody th").all_text_contents() == ["4", "8", "16"]
    cells = page.locator("#sweep .sweep-cell").evaluate_all("cells => cells.map(cell => cell.ariaLabel)")
    assert cells == [f"Index {index}" for index in range(6, 12)]
    drawn(page, "#sweep tbody tr:nth-child(2) td:nth-child(3) .sweep-cell", 9)
    page.locator("#sweep select").nth(1).select_option("seed")
    assert page.locator("#sweep tbody th").all_text_contents() == [str(index) for index in range(6, 12)]


def test_two_runs_stand_side_by_side(runs: tuple[Path, Path], seen: Watched):
    page = seen.open(runs[0])
    page.keyboard.press("c")
    drawn(page, "#image-3 .thumb:nth-child(2)", 3)
    page.locator("#image-3").click()
    assert page.locator("#full figcaption").all_text_contents() == ["one", "other"]
    rows = page.locator("#full tr.differs th").all_text_contents()
    assert set(rows) == {"sampler", "id", "score.aesthetic"}
    page.goto(f"{runs[0].as_uri()}#compare=1&i=23")
    page.locator("#full .head b", has_text="23").wait_for()
    assert page.locator("#full figure").count() == 1, "the other run is shorter"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_dark_where_the_system_is_and_can_be_told_otherwise(
    runs: tuple[Path, Path], chromium_: Browser, scheme: str
):
    watched = Watched(chromium_, color_scheme=scheme)
    page = watched.open(runs[0])
    bright = "parseInt(getComputedStyle(document.body).backgroundColor.slice(4)) > 128"
    assert page.evaluate(bright) is (scheme == "light")
    page.keyboard.press("t")
    assert page.evaluate(bright) is (scheme == "dark")
    watched.context.close()
    assert watched.wrong == []


def test_it_fits_a_phone(runs: tuple[Path, Path], chromium_: Browser):
    watched = Watched(chromium_, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = watched.open(runs[0])
    wide = "document.documentElement.scrollWidth <= innerWidth"
    assert page.evaluate(wide) and page.locator("#image-2").is_visible()
    page.tap("#filters")
    page.tap("details[data-field=state] button >> nth=1")
    page.tap("#filters")
    page.tap(f"#image-{FAILED}")
    assert "failed: NaN" in (page.locator("#full .reason").text_content() or "")
    assert page.evaluate(wide) and page.evaluate("document.querySelector('#full').scrollWidth <= innerWidth")
    watched.context.close()
    assert watched.wrong == []


def test_it_is_served_from_a_port_with_both_runs(runs: tuple[Path, Path], chromium_: Browser):
    outputs = [open_output(str(page.parents[1])) for page in runs]
    paths = served_under(*outputs)
    with make_server(dict(zip(paths, outputs, strict=True)), 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        watched = Watched(chromium_)
        watched.page.goto(f"{page_url(server, paths[0])}#compare=1&i=3")
        watched.page.locator("#full figure img").nth(1).wait_for()
        watched.page.wait_for_function("() => [...document.images].every(image => image.naturalWidth === 64)")
        watched.context.close()
        server.shutdown()
    assert watched.wrong == []
    assert {url.split("/")[2] for url in watched.asked if url.startswith("http")} == {
        f"127.0.0.1:{server.server_address[1]}"
    }


def test_a_hundred_thousand_images_scroll_by_few_cells(tmp_path: Path, seen: Watched):
    """Rows of a plan alone: what is not rendered yet is in the gallery, too."""
    rows = [{"prompt": f"image {index}"} for index in range(100_000)]
    output = make_run(tmp_path, "many", rows, without=range(100, len(rows)))
    page = seen.open(gallery_of(output))
    page.locator("#grid").focus()
    page.keyboard.press("End")
    page.locator("#image-99999").wait_for()
    assert page.locator(".cell").count() < 120
    page.evaluate("document.getElementById('grid').scrollTop = 0")
    drawn(page, "#image-7 .thumb", 7)
    assert search(page, "77777") == [77777]
    with load_plan(output) as plan:
        assert plan.jobs == 100_000
