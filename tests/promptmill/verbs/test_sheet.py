"""`promptmill sheet`: at any time, of any run, whatever became of the last sheet."""

import io
import json
from pathlib import Path

from PIL import Image

from promptmill.contact_sheet import MARGIN, SIDE
from tests.dataset.conftest import Run, encoding, run
from tests.promptmill.conftest import Command

__all__ = ["encoding", "run"]


def test_a_sheet_of_what_is_there(promptmill: Command, run: Run, here: Path):
    ran = promptmill("sheet", run.folder, "--json")
    place = run.folder / "contact-sheet.png"
    assert json.loads(ran.out) == {"sheet": str(place), "shown": 8, "images": 8}, "ten rows, one failed, two of one job"
    assert ran.err == f"all on one sheet: {place}\n"
    assert Image.open(place).width == 8 * (SIDE + MARGIN) + MARGIN


def test_of_more_images_some_are_picked_evenly_and_that_is_said(promptmill: Command, run: Run, here: Path):
    ran = promptmill("sheet", run.folder, "--max-images", 3, "--columns", 2, "--to", "mine.png")
    assert (ran.code, ran.out) == (0, "mine.png\n")
    assert ran.err == "3 of 8 images on a sheet: mine.png\n"
    assert Image.open("mine.png").width == 2 * (SIDE + MARGIN) + MARGIN
    assert not (run.folder / "contact-sheet.png").exists()


def test_an_older_sheet_is_replaced(promptmill: Command, run: Run, here: Path):
    (run.folder / "contact-sheet.png").write_bytes(b"old")
    promptmill("sheet", run.folder)
    Image.open(io.BytesIO((run.folder / "contact-sheet.png").read_bytes())).verify()


def test_a_run_without_images_is_told(promptmill: Command, run: Run, here: Path):
    for path in run.folder.glob("images/*/*.png"):
        path.unlink()
    ran = promptmill("sheet", run.folder)
    assert (ran.code, ran.err) == (2, f"promptmill: {run.folder} has no images yet\n")


def test_all_images_take_many_sheets(promptmill: Command, run: Run, here: Path):
    asked = ("sheet", run.folder, "--all", "--max-images", 3, "--columns", 3)
    ran = promptmill(*asked)
    places = [run.folder / f"contact-sheet-0000{number}.png" for number in range(3)]
    assert ran.out.splitlines() == [str(place) for place in places] and ran.err == "8 images on 3 sheets\n"
    widths = [columns * (SIDE + MARGIN) + MARGIN for columns in (3, 3, 2)]
    assert [Image.open(place).width for place in places] == widths
    ran = promptmill(*asked, "--to", "mine.png", "--json")
    assert json.loads(ran.out) == {"sheets": [f"mine-0000{number}.png" for number in range(3)], "images": 8}
    promptmill("pack", run.folder, "--partial")
    assert promptmill("verify", run.folder).code == 0
