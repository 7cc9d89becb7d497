"""Images of a dataset in other formats and sizes: the pixels, and the job inside."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from promptmill.dataset.finish import finish
from promptmill.dataset.images import texts_of
from promptmill.dataset.options import PackError, PackOptions, check_resize
from promptmill.dataset.transcoder import Transcoder
from promptmill.dataset.verify import verify
from promptmill.producer.image_formats import IMAGE_FORMATS, open_image
from promptmill.producer.job import Job
from promptmill.worker.encode import a1111_parameters, encode_png
from tests.dataset.conftest import FAILED, Run, pixels
from tests.dataset.test_readers import agree

LOSSLESS = [name for name, kind in IMAGE_FORMATS.items() if kind.lossless is not None]
JOB = Job(prompt="a café at night, 猫 🐈", negative_prompt="blurry, \\ \n grey", seed=2**63, width=64, height=64)
PNG = encode_png(pixels(1), JOB, {"cut": {"prompt": "…"}})


def transcoded(png: bytes = PNG, **options: Any) -> bytes:
    return Transcoder(PackOptions(**options))(png)


def texts_in(data: bytes) -> dict[str, str]:
    with open_image(data, Image.open) as image:
        return texts_of(image)


def opened(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def smooth() -> np.ndarray:
    """Pixels that lossy formats are made for."""
    ramp = np.linspace(0, 255, 64)
    return np.stack(np.broadcast_arrays(ramp[:, None], ramp[None, :], 128.0), axis=-1).astype(np.uint8)


@pytest.mark.parametrize("name", LOSSLESS)
def test_without_a_quality_pixels_are_as_rendered(name: str):
    np.testing.assert_array_equal(opened(transcoded(image_format=name)), pixels(1))


def test_a_png_is_left_byte_by_byte():
    assert transcoded() == PNG


@pytest.mark.parametrize("name", sorted(set(IMAGE_FORMATS) - {"png"}))
def test_quality_is_paid_for_in_bytes(name: str):
    png = encode_png(smooth(), JOB)
    small, large = (transcoded(png, image_format=name, quality=quality) for quality in (30, 95))
    assert len(small) < len(large)
    assert np.abs(opened(large).astype(int) - smooth()).mean() < 2


@pytest.mark.parametrize("resize", [None, "32"], ids=["as rendered", "smaller"])
@pytest.mark.parametrize("name", IMAGE_FORMATS)
def test_the_job_stays_inside(name: str, resize: str | None):
    data = transcoded(image_format=name, resize=resize)
    assert texts_in(data)["parameters"] == texts_in(PNG)["parameters"] == a1111_parameters(JOB)
    record = json.loads(texts_in(data)["promptmill"])
    assert record == json.loads(texts_in(PNG)["promptmill"])
    assert record.pop("notes") == {"cut": {"prompt": "…"}} and record.pop("id") == JOB.id
    assert Job.from_fields(record) == JOB


@pytest.mark.parametrize("name", ["webp", "jpeg"])
def test_a1111_reads_the_parameters(name: str):
    """As AUTOMATIC1111's modules/images.py reads them: EXIF's UserComment, by piexif."""
    piexif = pytest.importorskip("piexif")
    pytest.importorskip("piexif.helper")
    with Image.open(io.BytesIO(transcoded(image_format=name))) as image:
        exif = piexif.load(image.info["exif"])
    assert piexif.helper.UserComment.load(exif["Exif"][piexif.ExifIFD.UserComment]) == a1111_parameters(JOB)


def test_a_record_that_a_jpeg_has_no_room_for_leaves_the_jobs_id():
    job = Job(prompt="猫" * 10_000, width=64, height=64)
    data = transcoded(encode_png(pixels(1), job), image_format="jpeg")
    assert texts_in(data) == {"promptmill": json.dumps({"id": job.id})}


@pytest.mark.parametrize("name", IMAGE_FORMATS)
def test_xmp_is_taken_along(name: str):
    with Image.open(io.BytesIO(PNG)) as image:
        info, file = PngInfo(), io.BytesIO()
        info.add_itxt("XML:com.adobe.xmp", "<x:xmpmeta>café</x:xmpmeta>")
        image.save(file, "PNG", pnginfo=info)
    assert "<x:xmpmeta>café</x:xmpmeta>".encode() in transcoded(file.getvalue(), image_format=name, resize="32")


@pytest.mark.parametrize(
    ("size", "resize", "expected"),
    [((64, 32), "16", (16, 8)), ((64, 32), "100", (64, 32)), ((64, 32), "16x16", (16, 16)), ((8, 300), "3", (1, 3))],
)
def test_sizes(size: tuple[int, int], resize: str, expected: tuple[int, int]):
    file = io.BytesIO()
    Image.new("RGB", size).save(file, "PNG")
    with Image.open(io.BytesIO(transcoded(file.getvalue(), resize=resize))) as image:
        assert image.size == expected


@pytest.mark.parametrize("text", ["", "0", "x", "12x", "16x0", "-3", "1.5"])
def test_what_is_no_size_is_refused(text: str):
    with pytest.raises(PackError, match="is not a size such as 512, or 512x384"):
        check_resize(text)


def test_what_a_format_cannot_is_refused_before_anything_is_written(run: Run, monkeypatch: pytest.MonkeyPatch):
    def refused(**options: Any) -> str:
        with pytest.raises(PackError) as told:
            finish(run.output, run.plan, {FAILED: "dog"}, options=PackOptions(**options))
        assert not (run.folder / "manifest.parquet").exists()
        return str(told.value)

    assert refused(quality=90) == "png is lossless: it has no quality"
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)  # as where it is not installed
    assert refused(image_format="jxl") == "pillow_jxl is not installed here: pip install 'promptmill[jxl]'"


@pytest.mark.parametrize("name", IMAGE_FORMATS)
@pytest.mark.parametrize("format_", ["webdataset", "parquet", "imagefolder"])
def test_a_dataset_of_any_image_format_is_read_and_verified(run: Run, tmp_path: Path, name: str, format_: str):
    datasets = pytest.importorskip("datasets")
    options = PackOptions(format=format_, image_format=name, quality=None if name in LOSSLESS else 100)
    finish(run.output, run.plan, {FAILED: "dog"}, options=options)
    assert list(verify(run.output)) == []
    files = {"webdataset": "*.tar", "parquet": "*.parquet", "imagefolder": "**"}[format_]
    found = datasets.load_dataset(
        format_, data_files=str(run.folder / "data" / files), split="train", cache_dir=str(tmp_path / "hf")
    )
    extension = IMAGE_FORMATS[name].extension
    if format_ == "webdataset":
        images = [(sample["json"]["index"], sample[extension]) for sample in found]
    else:
        images = [(sample["index"], sample["image"]) for sample in found]
    if format_ == "webdataset" and name == "jxl":  # which `datasets` takes for bytes
        images = [(index, opened(data)) for index, data in images]
    if name in LOSSLESS:
        agree(run, images, sorted(run.pixels))
    else:
        assert sorted(index for index, _ in images) == sorted(run.pixels)
        assert all(np.abs(np.asarray(image).astype(int) - run.pixels[index]).mean() < 3 for index, image in images)
