"""`pack` and `verify` as a user calls them, on a run that a worker rendered, in a folder and in a bucket."""

import json
import shutil
from pathlib import Path

from PIL import Image

from tests.dataset.conftest import Run, encoding, run
from tests.promptmill.conftest import Command

__all__ = ["encoding", "run"]


def test_packing_tells_each_shard_and_the_holes(promptmill: Command, run: Run, here: Path):
    refused = promptmill("pack", run.folder)
    assert (refused.code, refused.out) == (2, "")
    assert refused.err == f"promptmill: {run.folder}: 1 of 10 jobs have neither image nor failure\n"
    packed = promptmill("pack", run.folder, "--shard-size", 5, "--partial", "--json")
    assert packed.code == 1, "there is a hole"
    assert json.loads(packed.out) == {"output": str(run.folder), "done": 9, "missing": 1}
    first, second, said = packed.err.splitlines()
    assert first.startswith("data/00000.tar: 4 images, ") and second.startswith("data/00001.tar: 5 images, ")
    assert said == f"{run.folder}: 9 images packed, 1 missing"


def test_splits_and_sizes_are_asked_for_and_told(promptmill: Command, run: Run, here: Path):
    wrong = promptmill("pack", run.folder, "--partial", "--split", "train=0.9,val=0.9")
    assert (wrong.code, wrong.out) == (2, "") and "are 1.8 together, expected 1" in wrong.err
    wrong = promptmill("pack", run.folder, "--partial", "--shard-bytes", "much")
    assert wrong.code == 2 and "'much' is not a size such as 1GB" in wrong.err
    assert not (run.folder / "data").exists()
    split = promptmill("pack", run.folder, "--partial", "--split", "train=0.5,val=0.5", "--shard-bytes", "60KB")
    assert split.code == 1
    names = [line.partition(":")[0] for line in split.err.splitlines()[:-1]]
    assert sorted(names)[0] == "data/train-00000.tar" and sorted(names)[-1].startswith("data/val-0000")
    assert promptmill("verify", run.folder).code == 0


def test_scores_of_the_users_own_become_columns_of_the_manifest(promptmill: Command, run: Run, here: Path):
    (here / "my_scores.py").write_text("def redness(images, rows):\n    return [row['index'] / 4 for row in rows]\n")
    assert promptmill("curate", run.folder, "--score", "my_scores:redness").code == 0
    assert promptmill("pack", run.folder, "--partial", "--scores", "curation/curation.parquet").code == 1
    told = promptmill("manifest", run.folder).out.splitlines()
    assert json.loads(told[3])["score_redness"] == 0.75 and json.loads(told[3])["score_brightness"] > 0
    assert promptmill("verify", run.folder).code == 0
    (here / "mine.csv").write_text("index,redness\n3,2.5\n")
    assert promptmill("pack", run.folder, "--partial", "--scores", "mine.csv").code == 1
    told = promptmill("manifest", run.folder, "--format", "csv").out.splitlines()
    assert told[0].endswith("score_redness") and told[4].endswith(",2.5")
    assert promptmill("verify", run.folder).code == 0
    (here / "wrong.csv").write_text("index,redness\n10,2.5\n")
    wrong = promptmill("pack", run.folder, "--partial", "--scores", "wrong.csv")
    assert wrong.code == 2 and "wrong.csv:2: index must be a whole number from 0 to 9, got '10'" in wrong.err


def test_images_are_packed_in_another_format_and_size(promptmill: Command, run: Run, here: Path):
    asked = ("--partial", "--format", "imagefolder", "--image-format", "jpeg")
    wrong = promptmill("pack", run.folder, *asked, "--resize", "big")
    assert wrong.code == 2 and "'big' is not a size such as 512, or 512x384" in wrong.err
    assert promptmill("pack", run.folder, *asked, "--quality", 80, "--resize", "32x16").code == 1
    with Image.open(run.folder / "data" / "00000" / "000000000.jpg") as image:
        assert (image.format, image.size) == ("JPEG", (32, 16))
    again = promptmill("pack", run.folder, "--partial")
    assert again.code == 2
    assert "packed already, with --format imagefolder, --image-format jpeg, --quality 80, --resize 32x16;" in again.err


def test_the_card_shows_images_and_names_the_licence(promptmill: Command, run: Run, here: Path):
    assert promptmill("pack", run.folder, "--partial", "--license", "openrail++").code == 1
    card = (run.folder / "README.md").read_text()
    assert 'license: "openrail++"' in card and "](contact-sheet.png)" in card
    with Image.open(run.folder / "contact-sheet.png") as sheet:
        assert sheet.width > 64 * 8
    assert promptmill("verify", run.folder).code == 0


def test_verifying_says_what_is_wrong_and_where(promptmill: Command, run: Run, here: Path):
    promptmill("pack", run.folder, "--partial")
    whole = promptmill("verify", run.folder)
    assert (whole.code, whole.out, whole.err) == (0, "", f"{run.folder}: all is well\n")
    broken = sorted(run.folder.glob("images/*/*.png"))[0]
    broken.write_bytes(broken.read_bytes()[:-1])
    wrong = promptmill("verify", run.folder, "--json")
    assert wrong.code == 1
    (finding,) = map(json.loads, wrong.out.splitlines())
    assert finding["name"] == str(broken.relative_to(run.folder))
    assert finding["problem"] == "is truncated: its end is missing"


def test_a_run_json_that_cannot_be_read_is_a_finding(promptmill: Command, run: Run, here: Path):
    promptmill("pack", run.folder, "--partial")
    (run.folder / "run.json").write_text("{")
    ran = promptmill("verify", run.folder)
    assert ran.code == 1
    assert "run.json: has other bytes than when it was written" in ran.out.splitlines()


def test_the_ledger_of_another_run_of_this_name_is_not_asked(promptmill: Command, at_redis: str, run: Run, here: Path):
    submitted = promptmill("submit", "cats.txt", "--output", "elsewhere", "--model", "tiny-random", "--run", "cats")
    assert submitted.code == 0
    promptmill("pack", run.folder, "--partial")
    assert promptmill("verify", run.folder).code == 0
    found = promptmill("verify", "elsewhere/cats", "--fast")
    assert (found.code, len(found.out.splitlines())) == (1, 2)


def test_what_is_no_run_is_told(promptmill: Command, run: Run, here: Path):
    ran = promptmill("verify", run.folder.parent)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"promptmill: {run.folder.parent} has no run.json: name the folder of one run, such as out/RUN\n"


def test_a_run_is_found_by_its_name_in_redis(promptmill: Command, at_redis: str, here: Path):
    submitted = promptmill("submit", "cats.txt", "--output", "out", "--model", "tiny-random", "--run", "cats")
    assert submitted.code == 0
    ran = promptmill("pack", "cats")
    assert ran.code == 2
    assert ran.err.endswith("out/cats: 2 of 2 jobs have neither image nor failure\n")
    unknown = promptmill("pack", "dogs")
    assert unknown.code == 2 and "nor is it a folder with a run.json" in unknown.err


def test_a_name_that_is_no_folder_either_is_told_where_there_is_no_redis(promptmill: Command, here: Path):
    ran = promptmill("pack", "dogs", "--broker", "redis://localhost:1/0")
    assert ran.code == 2
    assert f"{here / 'dogs'} has no run.json, and as the name of a run: no Redis at" in ran.err


def test_a_gallery_is_written_and_its_page_named(promptmill: Command, run: Run, here: Path):
    made = promptmill("gallery", run.folder)
    page = run.folder / "gallery" / "index.html"
    assert (made.code, made.out) == (0, f"{page}\n") and page.exists()
    assert made.err == f"cats: images 0 to 9\n10 images in a gallery: {page}\n"
    again = promptmill("gallery", run.folder, "--json")
    assert json.loads(again.out) == {"gallery": str(page), "images": 10}
    assert "images 0 to 9" not in again.err


def test_curating_lists_what_to_keep_by_a_score_from_this_folder(promptmill: Command, run: Run, here: Path):
    (here / "scores_by_seed.py").write_text("def by_seed(images, rows):\n    return [row['seed'] for row in rows]\n")
    ran = promptmill("curate", run.folder, "--score", "scores_by_seed:by_seed", "--min", "by_seed=5", "--json")
    assert ran.code == 0
    told = json.loads(ran.out)
    assert (told["to"], told["kept"]) == ("curation", 4)
    assert (here / "curation" / "keep.txt").read_text() == "5\n6\n8\n9\n"
    wrong = promptmill("curate", run.folder, "--score", "scores_by_seed:nothing")
    assert wrong.code == 2 and "has no attribute 'nothing'" in wrong.err
    assert promptmill("curate", run.folder, "--min", "sharpness").code == 2


def test_the_manifest_is_printed(promptmill: Command, run: Run, here: Path):
    ran = promptmill("manifest", run.folder)
    assert [json.loads(line)["index"] for line in ran.out.splitlines()] == list(range(10))
    assert promptmill("manifest", run.folder, "--format", "csv").out.startswith("index,id,state,reason,path,")


def test_a_gallery_takes_scores_and_another_run(promptmill: Command, run: Run, here: Path):
    other = run.folder.with_name("dogs")
    shutil.copytree(run.folder, other)
    (here / "scores.csv").write_text("index,aesthetic\n3,6.5\n")
    made = promptmill("gallery", run.folder, "--compare", other, "--scores", here / "scores.csv")
    assert made.code == 0 and "dogs: images 0 to 9\ncats: images 0 to 9\n" in made.err
    assert "../../dogs/gallery/" in (run.folder / "gallery" / "run.js").read_text()
    assert "../../cats/gallery/" in (other / "gallery" / "run.js").read_text()
    assert '"aesthetic":[null,null,null,6.5,' in (run.folder / "gallery" / "data" / "00000.js").read_text()
    wrong = promptmill("gallery", run.folder, "--compare", run.folder)
    assert wrong.code == 2 and wrong.err == f"promptmill: {run.folder} cannot be compared with itself\n"
    (here / "scores.csv").write_text("index,aesthetic\n30,6.5\n")
    wrong = promptmill("gallery", run.folder, "--scores", here / "scores.csv")
    assert wrong.code == 2 and "scores.csv:2: index must be a whole number from 0 to 9, got '30'" in wrong.err
