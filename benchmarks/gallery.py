"""How long a gallery takes to write, and how it opens, searches and scrolls in a headless Chromium.

    python -m benchmarks.gallery --images 20000 --write docs/performance.md

Images are of one colour each and 64 pixels wide, so writing shows the overhead; the page handles 1024-pixel ones alike,
since it draws thumbnails. Chromium draws without a GPU here: frames are slower than on anybody's desk.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Browser, sync_playwright

from benchmarks.report import circumstances, table, write_section
from promptmill.dataset.gallery.writer import FOLDER, INDEX, write_gallery
from promptmill.producer.layout import image_name
from promptmill.producer.outputs.open import open_output
from promptmill.producer.plan import Plan, plan_jobs
from promptmill.producer.plan_files import write_plan
from promptmill.worker.encode import encode_png

SIDE = 64  # pixels
WORDS = ["red", "blue", "green", "yellow", "apple", "cat", "dog", "house", "tree", "river", "boat", "star"]
PIXELS_PER_FRAME = 60
FRAMES = 300

FRAME_TIMES = """
([pixels, frames]) => new Promise((done) => {
  const [grid, times] = [document.getElementById("grid"), []];
  let before = performance.now();
  const frame = (now) => {
    times.push(now - before);
    before = now;
    grid.scrollTop += pixels;
    times.length > frames ? done(times.slice(1)) : requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
})
"""
DRAWN = "() => [...document.querySelectorAll('.cell .image')].every((image) => image.style.backgroundImage)"
READ = "() => document.getElementById('told').textContent === '{:,} images'"
FOUND = "() => document.getElementById('told').textContent.includes(' of ')"


def make_run(folder: Path, images: int) -> Plan:
    """A run whose images are written straight into a folder: nobody waits here for a disk to be sure."""
    rows = (
        {
            "prompt": f"a {WORDS[index % 4]} {WORDS[4 + index % 8]}, number {index}",
            "model": "pocket",
            "width": SIDE,
            "height": SIDE,
            "num_inference_steps": 10 + index % 4 * 10,
        }
        for index in range(images)
    )
    plan = plan_jobs(rows)
    write_plan(open_output(str(folder)), folder.name, plan)
    for job in plan:
        path = folder / image_name(job.id)
        path.parent.mkdir(parents=True, exist_ok=True)
        colour = np.random.default_rng(job.index).integers(0, 256, 3, np.uint8)
        path.write_bytes(encode_png(np.broadcast_to(colour, (SIDE, SIDE, 3)), plan.whole(job)))
    return plan


def written(folder: Path, plan: Plan) -> dict[str, float]:
    """Seconds to write the gallery, and to find that it is there; its files and bytes."""
    found = {}
    for what in ("write, s", "write again, s"):
        start = time.perf_counter()
        write_gallery(open_output(str(folder)), plan, {}, name=folder.name)
        found[what] = time.perf_counter() - start
    files = [path for path in (folder / FOLDER).rglob("*") if path.is_file()]
    return {**found, "files": len(files), "MB": sum(path.stat().st_size for path in files) / 1e6}


def opened(browser: Browser, page_file: Path, images: int) -> dict[str, float]:
    """Milliseconds until the first paint, the thumbnails, all rows, the answer to a search; and those of frames."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(300_000)
    start = time.perf_counter()
    page.goto(page_file.as_uri())
    page.wait_for_function(DRAWN)
    drawn = time.perf_counter()
    page.wait_for_function(READ.format(images))
    read = time.perf_counter()
    paint = page.evaluate("() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? NaN")
    frames = sorted(page.evaluate(FRAME_TIMES, [PIXELS_PER_FRAME, FRAMES]))
    typed = time.perf_counter()
    page.fill("#query", "red cat -7")
    page.wait_for_function(FOUND)
    answered = time.perf_counter()
    return {
        "first paint, ms": paint,
        "thumbnails, ms": (drawn - start) * 1000,
        "all rows read, ms": (read - start) * 1000,
        "search, ms": (answered - typed) * 1000,
        **frame_numbers(frames),
    }


def frame_numbers(frames: Sequence[float]) -> dict[str, float]:
    """Of sorted times between frames, in milliseconds."""
    return {
        "frame, median ms": frames[len(frames) // 2],
        "frame, 95% ms": frames[len(frames) * 95 // 100],
        "frame, longest ms": frames[-1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[20_000])
    parser.add_argument("--chromium", default=next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), ""))
    parser.add_argument("--write", type=Path, help="A page whose section `gallery` is written anew.")
    asked = parser.parse_args()
    columns: list[dict[str, Any]] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=asked.chromium, timeout=120_000)
        for images in asked.images:
            with tempfile.TemporaryDirectory(prefix="gallery-") as parent:
                folder = Path(parent) / "run"
                with make_run(folder, images) as plan:
                    found = written(folder, plan)
                columns.append({"images": images, **found, **opened(browser, folder / INDEX, images)})
        told = circumstances(("pillow", "playwright"), device=f"Chromium {browser.version}, headless, no GPU")
        browser.close()
    rows = [[name, *(_shown(column[name]) for column in columns)] for name in columns[0]]
    text = f"{table(rows[0], rows[1:])}\n\n{told}."
    print(text)
    if asked.write:
        write_section(asked.write, "gallery", text)


def _shown(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 or number == int(number) else f"{number:.1f}"


if __name__ == "__main__":
    main()
