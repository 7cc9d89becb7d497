"""What a gallery's files are: thumbnails, rows as scripts, the same bytes again."""

import json
import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from promptmill.dataset.finish import finish
from promptmill.dataset.gallery import rows
from promptmill.dataset.gallery.script import call
from promptmill.dataset.gallery.sprites import COLUMNS, SIDE, fitted_size
from promptmill.dataset.gallery.writer import SCRIPTS, Made, page_files, write_gallery
from promptmill.dataset.verify import verify
from promptmill.producer.layout import JOB_ID_KEY, image_name
from promptmill.producer.outputs.open import open_output
from promptmill.producer.plan_files import write_plan
from promptmill.worker.encode import encode_png
from tests.dataset.conftest import FAILED, REPEATED, Run
from tests.dataset.galleries import HOSTILE, colour, gallery_of, make_run
from tests.fake_gcs import FakeGcs

LITERAL = re.compile(r"'((?:[^'\\]|\\.)*)'")


def values_in(script: str) -> list[object]:
    """The values that a script hands over: read as JavaScript reads it."""
    unescaped = [re.sub(r"\\u([0-9a-f]{4})|\\(.)", _char, text) for text in LITERAL.findall(script)]
    return [json.loads(text) for text in unescaped]


def _char(match: re.Match[str]) -> str:
    return chr(int(match[1], 16)) if match[1] else match[2]


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def written(run: Run, **more: object) -> list[Made]:
    made: list[Made] = []
    write_gallery(run.output, run.plan, {FAILED: "the dog ate it"}, name="cats", progress=made.append, **more)  # type: ignore[arg-type]
    return made


@pytest.mark.parametrize("text", [*HOSTILE, "\x00\x1f\x7f", "'\\'\\\\", "\U0010ffff"])
def test_data_is_one_string_whatever_it_holds(text: str):
    script = call("chunk", {text: text}).decode()
    assert values_in(script) == [{text: text}]
    assert not set("<>&\u2028\u2029\r\n") & set(script.removesuffix("\n"))
    assert re.fullmatch(r"promptmill\.chunk\('(?:[^'\\]|\\.)*'\);\n", script)


def test_a_chunk_has_the_rows_of_its_range(run: Run):
    written(run)
    digest, chunk = values_in((run.folder / "gallery/data/00000.js").read_text())
    assert isinstance(chunk, dict) and re.fullmatch("[0-9a-f]{16}", str(digest))
    assert chunk["states"] == "ddddfddddd" and chunk["more"] == {str(FAILED): {"reason": "the dog ate it"}}
    jobs = [run.plan.whole(planned) for planned in run.plan]
    assert chunk["ids"] == [job.id for job in jobs] and chunk["ids"][2] == chunk["ids"][REPEATED]
    for at, job in enumerate(jobs):
        fields = {"prompt": chunk["prompts"][at], "seed": int(chunk["seeds"][at])}
        assert {**fields, **json.loads(chunk["kinds"][chunk["kind"][at]])} == job.fields()


def test_each_thumbnail_lies_in_its_square(tmp_path: Path):
    output = make_run(tmp_path, "colours", [{"prompt": f"colour {index}"} for index in range(103)])
    folder = gallery_of(output).parent
    for index in range(103):
        with Image.open(folder / f"sprites/{index // 100:05d}.webp") as sprite:
            at = index % 100
            middle = (at % COLUMNS * SIDE + SIDE // 2, at // COLUMNS * SIDE + SIDE // 2)
            found = sprite.convert("RGB").getpixel(middle)
        assert max(abs(a - b) for a, b in zip(found, colour(index), strict=True)) < 12  # type: ignore[arg-type]


def test_thumbnails_keep_the_shape_of_their_images():
    assert [fitted_size(*size) for size in ((64, 64), (1024, 512), (832, 1216), (8, 4096))] == [
        (128, 128),
        (128, 64),
        (88, 128),
        (1, 128),
    ]


def test_a_gallery_is_the_same_bytes_whenever_it_is_written(run: Run):
    written(run)
    first = files_in(run.folder / "gallery")
    assert set(first) == {"index.html", "app.js", "style.css", "run.js", "data/00000.js", "sprites/00000.webp"}
    assert [made.kept for made in written(run)] == [True]
    for name in first:
        (run.folder / "gallery" / name).unlink()
    assert [made.kept for made in written(run)] == [False]
    assert files_in(run.folder / "gallery") == first


def test_writing_goes_on_where_it_was_stopped_and_takes_in_what_came(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("promptmill.dataset.gallery.writer.CHUNK_ROWS", 4)
    monkeypatch.setattr("promptmill.dataset.gallery.rows.CHUNK_ROWS", 4)
    monkeypatch.setattr("promptmill.dataset.gallery.writer.SPRITE_ROWS", 2)
    assert rows.CHUNK_ROWS == 4
    written(run)
    whole = files_in(run.folder / "gallery")
    image = run.folder / image_name(next(iter(run.plan.at([9]))).id)
    data, changed = image.read_bytes(), image.stat().st_mtime_ns
    image.unlink()
    (run.folder / "gallery/sprites/00001.webp").unlink()
    assert [made.kept for made in written(run)] == [False, True, False]
    assert values_in((run.folder / "gallery/data/00002.js").read_text())[1]["states"] == "dm"  # type: ignore[index]
    image.write_bytes(data)
    os.utime(image, ns=(changed, changed))
    assert [made.kept for made in written(run)] == [True, True, False]
    assert files_in(run.folder / "gallery") == whole


def test_an_image_that_was_rendered_anew_under_its_name_has_a_new_thumbnail(run: Run):
    written(run)
    path = run.folder / image_name(next(iter(run.plan.at([0]))).id)
    job = run.plan.whole(next(iter(run.plan.at([0]))))
    path.write_bytes(encode_png(np.full((64, 64, 3), (255, 0, 0), np.uint8), job))
    assert [made.kept for made in written(run)] == [False]
    with Image.open(run.folder / "gallery/sprites/00000.webp") as sprite:
        red, green, blue = sprite.convert("RGB").getpixel((SIDE // 2, SIDE // 2))  # type: ignore[misc]
    assert red > 240 and green < 20 and blue < 20


def padded(png: bytes, size: int) -> bytes:
    """The same image as a file of that many bytes."""
    chunk = b"paDd" + bytes(size - len(png) - 12)
    return png[:-12] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + png[-12:]


def test_an_image_of_the_same_size_has_a_new_thumbnail_too(run: Run):
    path = run.folder / image_name(next(iter(run.plan.at([0]))).id)
    job = run.plan.whole(next(iter(run.plan.at([0]))))
    for shown in ((255, 0, 0), (0, 0, 255)):
        path.write_bytes(padded(encode_png(np.full((64, 64, 3), shown, np.uint8), job), 3000))
        assert [made.kept for made in written(run)] == [False]
    with Image.open(run.folder / "gallery/sprites/00000.webp") as sprite:
        red, _, blue = sprite.convert("RGB").getpixel((SIDE // 2, SIDE // 2))  # type: ignore[misc]
    assert red < 20 and blue > 240


def test_an_image_that_cannot_be_read_is_told(run: Run):
    path = run.folder / image_name(next(iter(run.plan.at([0]))).id)
    data = bytearray(path.read_bytes())
    at = data.index(b"IDAT") + 40
    data[at : at + 40] = bytes(40)
    path.write_bytes(data)
    written(run)
    chunk = values_in((run.folder / "gallery/data/00000.js").read_text())[1]
    assert chunk["states"][0] == "b" and "cannot be read" in chunk["more"]["0"]["reason"]  # type: ignore[index]


def test_a_gallery_is_nothing_strange_in_a_packed_run(run: Run):
    finish(run.output, run.plan, {FAILED: "the dog ate it"})
    written(run)
    assert list(verify(run.output)) == [] == list(verify(run.output, fast=True))


def test_a_gallery_is_written_into_a_bucket(run: Run, fake_gcs: FakeGcs, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake_gcs.url)
    fake_gcs.create_bucket("gallery")
    output = open_output("gs://gallery/prefix/cats")
    write_plan(output, "cats", run.plan)
    for path in (run.folder / "images").rglob("*.png"):
        name = str(path.relative_to(run.folder))
        output.put_once(name, path.read_bytes(), content_type="image/png", metadata={JOB_ID_KEY: path.stem})
    written(run)
    made: list[Made] = []
    for _ in range(2):
        reasons = {FAILED: "the dog ate it"}
        write_gallery(output, run.plan, reasons, name="cats", progress=made.append)
    assert [one.kept for one in made] == [False, True]
    here = files_in(run.folder / "gallery")
    there = {name: output.get(f"gallery/{name}") for name in here}
    for files in (here, there):  # a bucket knows checksums of images, which go into the digests
        files["data/00000.js"] = re.sub(rb"[0-9a-f]{16}", b"", files["data/00000.js"], count=1)
    assert there == here


def test_the_page_makes_no_html_of_texts_and_asks_nobody():
    page = {name: data.decode() for name, data in page_files().items()}
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "fetch("):
        assert word not in page["app.js"]
    for name, text in page.items():
        assert not re.search(r"(https?:)?//[a-z0-9-]+\.[a-z]", re.sub(r"// .*|/\*.*?\*/", "", text)), name
    assert "default-src 'none'" in page["index.html"] and len(SCRIPTS) == len(set(SCRIPTS))
