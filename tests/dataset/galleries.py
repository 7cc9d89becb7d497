"""Runs for the tests of the gallery, with texts that mean harm, and a Chromium to look at them with."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, sync_playwright

from promptmill.dataset.gallery.writer import INDEX, write_gallery
from promptmill.producer.layout import image_name
from promptmill.producer.outputs.open import open_output
from promptmill.producer.outputs.output import Output
from promptmill.producer.plan import Plan, PlanOptions, plan_jobs
from promptmill.producer.plan_files import load_plan, write_plan
from promptmill.producer.prompts.expand import Expansion
from promptmill.producer.prompts.files import Row
from promptmill.worker.encode import encode_png

HOSTILE = (
    "<script>window.harmed = 1</script>",
    "</script><script>window.harmed = 2</script>",
    '"><img src=x onerror="window.harmed = 3">',
    "<!--<script> </title></textarea></style>--> &lt;b&gt; &amp;",
    "'); window.harmed = 4; ('",
    "\\'); window.harmed = 5; //",
    "${window.harmed = 6} `backticks` {{constructor.constructor('window.harmed = 6')()}}",
    "line\u2028separator\u2029and\nnew lines\tand tabs",
    "turned \u202egnp.evil\u202c \u2066isolated\u2069 שלום עולם مرحبا",
    "$(touch harmed) `touch harmed` ; touch harmed & 'quotes' \"doubled\" \\ back%slash%n",
    "__proto__ constructor toString",
    "猫が座る 🐈\u200d⬛ e\u0301",
    "x" * 5000,
    "-- --help -n",
)
HOSTILE_LABELS: tuple[Mapping[str, Any], ...] = (
    {"__proto__": "polluted", "constructor": "c", "class": "<b>bold</b>"},
    {"<img src=x onerror=window.harmed=7>": "</td><script>window.harmed = 8</script>", "class": "a b"},
    {
        "class": 'say "hi" \\',
        "controls": "a\r\n\x0b\x0c\x7f\x1b[31m\u0085",
        "deep": {"a": [1, None, "<i>"]},
        "javascript:window.harmed=9": True,
    },
)


PLAIN = Expansion(plain=True)


def colour(index: int) -> tuple[int, int, int]:
    return (index * 37 % 256, index * 91 % 256, index * 53 % 256)


def make_run(
    parent: Path,
    name: str,
    rows: Sequence[Mapping[str, Any]],
    labels: Mapping[int, Mapping[str, Any]] | None = None,
    *,
    without: Sequence[int] = (),
) -> Output:
    """A run with an image of one colour for each index but some."""
    output = open_output(str(parent)).child(name)
    numbered = [Row(index + 1, dict(row), dict((labels or {}).get(index, {}))) for index, row in enumerate(rows)]
    with plan_jobs(
        numbered, PlanOptions(defaults={"model": "tiny-random", "width": 64, "height": 64}, expansion=PLAIN)
    ) as plan:
        write_plan(output, name, plan)
        put_images(output, plan, without=without)
    return output


def put_images(output: Output, plan: Plan, *, without: Sequence[int] = ()) -> None:
    for planned in plan:
        if planned.index not in without:
            job = plan.whole(planned)
            pixels = np.full((job.height, job.width, 3), colour(planned.index), np.uint8)
            output.put_once(
                image_name(planned.id), encode_png(pixels, job), content_type="image/png", ours=lambda _: True
            )


def hostile_run(parent: Path) -> Output:
    """A row per hostile text, with hostile labels; the last failed for a hostile reason."""
    rows = [{"prompt": text, "negative_prompt": text} for text in HOSTILE]
    labels = {index: HOSTILE_LABELS[index % len(HOSTILE_LABELS)] for index in range(len(HOSTILE))}
    return make_run(parent, "hostile", rows, labels, without=[len(rows) - 1])


def gallery_of(output: Output, reasons: Mapping[int, str] | None = None, **more: Any) -> Path:
    """Write a run's gallery; its page."""
    with load_plan(output) as plan:
        write_gallery(output, plan, reasons or {}, name=output.url.rpartition("/")[2], **more)
    return Path(output.url) / INDEX


@cache
def chromium() -> str:
    """The path of Debian's or the system's Chromium. Without one: skipped on a laptop, an error in CI."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    path = next((found for name in names if (found := shutil.which(name))), None)
    if path is None and os.environ.get("CI") == "true":
        raise RuntimeError("no Chromium on the PATH")
    if path is None:
        pytest.skip("no Chromium on the PATH")
    return path


@contextmanager
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium(), timeout=120_000)
        yield started
        started.close()


class Watched:
    """A page, what it asked for, and what went wrong in it."""

    def __init__(self, browser: Browser, **options: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1200, "height": 800}, **options})
        self.context.set_default_timeout(60_000)
        self.page: Page = self.context.new_page()
        self.asked: list[str] = []
        self.wrong: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("console", self._told)
        self.page.on("dialog", self._dialog)

    def _told(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.wrong.append(message.text)

    def _dialog(self, dialog: Dialog) -> None:
        self.wrong.append(dialog.message)
        dialog.dismiss()

    def open(self, page: Path, fragment: str = "") -> Page:
        """Open a file, and wait until all rows are read."""
        self.page.goto(f"{page.as_uri()}{fragment}")
        self.read()
        return self.page

    def read(self) -> None:
        self.page.wait_for_function(
            "() => /image/.test(document.getElementById('told').textContent)"
            " && !/read/.test(document.getElementById('told').textContent)"
        )
