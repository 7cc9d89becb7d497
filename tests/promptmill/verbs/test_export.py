"""`promptmill export`: images under names that people can read, and OpenAI's answers."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from promptmill.export import slug
from promptmill.producer.layout import image_name
from promptmill.producer.outputs.open import open_output
from promptmill.producer.outputs.output import Output
from promptmill.producer.plan import PlanOptions, plan_run
from promptmill.producer.plan_files import write_plan
from promptmill.worker.encode import encode_png
from tests.fake_gcs import FakeGcs
from tests.promptmill.conftest import Command

MISSING = 3
ROWS = "prompt,class,seed\na red apple,fruit,5\nÉtude (№ 7)/b,music,6\na red apple,fruit,5\na cow,,8\nりんご,fruit,9\n"
NAMES = ["000000-a-red-apple", "000001-étude-7-b", "000002-a-red-apple", "000004-りんご"]


def rendered(output: Output, file: Path, missing: int | None = None) -> Output:
    """A run of this prompt file, with all images but one."""
    with plan_run([str(file)], PlanOptions(defaults={"model": "tiny-random", "width": 64, "height": 64})) as plan:
        write_plan(output, output.url.rpartition("/")[2], plan)
        for job in plan:
            if job.index != missing:
                pixels = np.random.default_rng(job.index).integers(0, 256, (64, 64, 3), dtype=np.uint8)
                output.put_once(image_name(job.id), encode_png(pixels, plan.whole(job)), ours=lambda there: True)
    return output


@pytest.fixture
def zoo(here: Path) -> Path:
    (here / "zoo.csv").write_text(ROWS)
    rendered(open_output(str(here / "out")).child("zoo"), here / "zoo.csv", MISSING)
    return here / "out" / "zoo"


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_images_get_names_that_people_can_read(promptmill: Command, zoo: Path):
    ran = promptmill("export", zoo, "named", "--json")
    assert (ran.code, json.loads(ran.out)) == (1, {"images": 4, "kept": 0, "missing": 1})
    assert names(Path("named")) == [f"{name}.png" for name in NAMES]
    first, third = Path("named/000000-a-red-apple.png"), Path("named/000002-a-red-apple.png")
    assert first.samefile(third), "an image that two rows share"
    assert any(first.samefile(path) for path in zoo.glob("images/*/*.png"))


def test_again_keeps_what_is_there_and_brings_the_rest(promptmill: Command, zoo: Path):
    promptmill("export", zoo, "named", "--copy", "--captions")
    Path("named/000001-étude-7-b.png").unlink()
    rendered(open_output(str(zoo)), Path("zoo.csv"))
    ran = promptmill("export", zoo, "named", "--copy", "--captions", "--json")
    assert (ran.code, json.loads(ran.out)) == (0, {"images": 5, "kept": 3, "missing": 0})
    assert Path("named/000003-a-cow.txt").read_text() == "a cow"
    assert Path("named/000001-étude-7-b.txt").read_text() == "Étude (№ 7)/b"
    assert not Path("named/000000-a-red-apple.png").samefile(next(zoo.glob("images/*/*.png")))
    assert len(names(Path("named"))) == 10


@pytest.mark.parametrize(
    ("template", "made"),
    [
        ("{seed}-{index}", ["5-0", "5-2", "6-1", "9-4"]),
        ("{class}/{index:03d}", ["fruit/000", "fruit/002", "fruit/004", "music/001"]),
    ],
)
def test_names_are_of_index_seed_and_labels(promptmill: Command, zoo: Path, template: str, made: list[str]):
    ran = promptmill("export", zoo, "named", "--name", template, "--index", "0-2,4")
    assert ran.code == 0, ran.err
    assert names(Path("named")) == [f"{name}.png" for name in made]


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{slug}", "index 0 and index 2 would both be called 'a-red-apple'; add {index}"),
        ("{kind}-{index}", "index 0 has no 'kind' (known: class, index, id, seed, slug)"),
        ("{class}-{index}", "index 3 has no 'class'"),
        ("{index.real}", "{index.real} is neither one of index, slug, id, seed nor a label"),
        ("{}", "{} is neither one of "),
        ("{index", "expected '}' before end of string"),
        ("{slug:06d}", "Unknown format code 'd'"),
        ("../{index}", "must stay within the folder"),
        ("/tmp/{index}", "must stay within the folder"),
        ("{index}/", "which is not a valid file name"),
    ],
)
def test_wrong_names_are_refused_before_anything_is_written(
    promptmill: Command, zoo: Path, template: str, problem: str
):
    ran = promptmill("export", zoo, "named", "--name", template)
    assert ran.code == 2
    assert problem in ran.err
    assert not Path("named").exists()


def test_what_is_something_else_is_left_alone(promptmill: Command, zoo: Path):
    Path("named").mkdir()
    Path("named/000000-a-red-apple.png").write_text("mine")
    ran = promptmill("export", zoo, "named")
    assert ran.code == 2
    assert "000000-a-red-apple.png exists and differs: --overwrite replaces it" in ran.err
    assert Path("named/000000-a-red-apple.png").read_text() == "mine"
    assert promptmill("export", zoo, "named", "--overwrite").code == 1
    assert Image.open("named/000000-a-red-apple.png").size == (64, 64)


def test_a_broken_image_is_none(promptmill: Command, zoo: Path):
    with plan_run(["zoo.csv"], PlanOptions(defaults={"model": "tiny-random", "width": 64, "height": 64})) as plan:
        path = zoo / image_name(next(plan.since(1)).id)
    path.write_bytes(path.read_bytes()[:300])
    ran = promptmill("export", zoo, "named", "--index", 1)
    assert (ran.code, names(Path("named")) if Path("named").exists() else []) == (1, [])


def test_the_folder_is_needed_and_must_be_writable(promptmill: Command, zoo: Path):
    assert "say where to" in promptmill("export", zoo).err
    Path("file").write_text("")
    assert promptmill("export", zoo, "file/named").code == 2


def test_a_runs_images_come_from_a_bucket_too(promptmill: Command, here: Path, fake_gcs: FakeGcs, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake_gcs.url)
    (here / "zoo.csv").write_text(ROWS)
    url = f"{fake_gcs.create_bucket('export')}/some/zoo"
    rendered(open_output(url), here / "zoo.csv", MISSING)
    ran = promptmill("export", url, "named", "--captions", "--json")
    assert (ran.code, json.loads(ran.out)) == (1, {"images": 4, "kept": 0, "missing": 1})
    assert names(here / "named") == sorted(f"{name}.{suffix}" for name in NAMES for suffix in ("png", "txt"))
    assert json.loads(promptmill("export", url, "named", "--json").out)["kept"] == 4


@pytest.mark.parametrize("text", ["", "...", "///", "\n", "a" * 500, "x" * 59 + "-y", "C:\\con"])
def test_a_slug_is_part_of_a_files_name(text: str):
    made = slug(text)
    assert 0 < len(made) <= 60
    assert not set(made) & set('/\\:\n"') and made.strip("-._") == made


# --- OpenAI ---------------------------------------------------------------------------------------------------


def requests() -> str:
    body = {"prompt": "a red apple", "n": 2, "size": "64x64"}
    rows = [
        {"custom_id": "a", "method": "POST", "url": "/v1/images/generations", "body": body},
        {"custom_id": "b", "method": "POST", "url": "/v1/images/generations", "body": {**body, "prompt": "a cow"}},
        {"custom_id": "c", "method": "POST", "url": "/v1/images/generations", "body": {**body, "n": 1}},
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


def lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_a_batch_file_is_answered_in_openais_form(promptmill: Command, here: Path):
    (here / "batch.jsonl").write_text(requests())
    folder = here / "out" / "batch"
    rendered(open_output(str(folder)), here / "batch.jsonl", MISSING)
    ran = promptmill("export", folder, "--openai", "answers")
    assert (ran.code, ran.err) == (1, "answers: 2 requests answered, 1 not\n")
    first, third = lines("answers/output.jsonl")
    assert [first["custom_id"], third["custom_id"]] == ["a", "c"]
    assert (first["error"], first["response"]["status_code"]) == (None, 200)
    assert [len(said["response"]["body"]["data"]) for said in (first, third)] == [2, 1]
    image = base64.b64decode(first["response"]["body"]["data"][0]["b64_json"])
    assert Image.open(io.BytesIO(image)).size == (64, 64)
    (wrong,) = lines("answers/error.jsonl")
    assert (wrong["custom_id"], wrong["response"], wrong["error"]["code"]) == ("b", None, "image_generation_failed")
    assert wrong["error"]["message"] == "1 of 2 images missing: index 3: not rendered yet"
    assert names(here / "answers") == ["error.jsonl", "output.jsonl"]


def test_urls_are_of_the_output(promptmill: Command, here: Path):
    (here / "batch.jsonl").write_text(requests())
    folder = here / "out" / "batch"
    rendered(open_output(str(folder)), here / "batch.jsonl")
    assert promptmill("export", folder, "--openai", "answers", "--urls").code == 0
    assert all(
        Path(image["url"]).is_file()
        for said in lines("answers/output.jsonl")
        for image in said["response"]["body"]["data"]
    )
    assert lines("answers/error.jsonl") == []


def test_another_runs_answers_are_refused(promptmill: Command, zoo: Path):
    ran = promptmill("export", zoo, "--openai", "answers")
    assert ran.code == 2
    assert "no job has a custom_id: the run was not submitted from an OpenAI Batch file" in ran.err
    assert names(Path("answers")) == []
