"""The formats that images of a dataset may have. A new one is a row, if Pillow can write it.

A rendered PNG has its job in text chunks: `promptmill`, the record, and `parameters`, the lines that A1111's tools
read. Other formats have no such chunks: there the record is EXIF's ImageDescription (JSON in ASCII), and the
parameters are its UserComment, where A1111 puts and finds them. XMP is taken along.
"""

import importlib.util
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from promptmill.dataset.exif import EXIF_IFD, IMAGE_DESCRIPTION, SOFTWARE, UNICODE, USER_COMMENT, exif_of
from promptmill.dataset.options import PackError, PackOptions
from promptmill.producer.layout import PNG_JOB_KEYWORD

A1111_KEYWORD = "parameters"

_JPEG_EXIF_BYTES = 65533  # a marker's segment is 65,535 bytes with its length

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class ImageFormat:
    """`lossless` and `lossy` are Pillow's options, None where there is no such thing; `quality` is set beside them."""

    pillow: str
    extension: str
    content_type: str
    lossless: Settings | None
    lossy: Settings | None
    plugin: str | None = None
    """A package that Pillow needs for it, and promptmill's extra of the same row."""
    extra: str = ""
    quality: int | None = None
    """Where none is asked for, and it cannot be lossless."""


IMAGE_FORMATS = {
    "png": ImageFormat("PNG", "png", "image/png", {"compress_level": 6}, None),
    "webp": ImageFormat("WEBP", "webp", "image/webp", {"lossless": True, "quality": 20, "method": 1}, {"method": 4}),
    "jpeg": ImageFormat("JPEG", "jpg", "image/jpeg", None, {"subsampling": "4:4:4", "optimize": True}, quality=95),
    "jxl": ImageFormat(
        *("JXL", "jxl", "image/jxl"),
        {"lossless": True, "effort": 3, "num_threads": 1},
        {"effort": 5, "num_threads": 1},
        plugin="pillow_jxl",
        extra="jxl",
    ),
}


class Transcoder:
    """Rendered images -> those of the dataset, as the options say. Safe to share between threads."""

    def __init__(self, options: PackOptions) -> None:
        """Raises PackError for what the format cannot do, or what is not installed."""
        kind = IMAGE_FORMATS[options.image_format]
        if options.quality is not None and kind.lossy is None:
            raise PackError(f"{options.image_format} is lossless: it has no quality")
        if kind.plugin is not None:
            if importlib.util.find_spec(kind.plugin) is None:
                name = kind.plugin
                raise PackError(f"{name} is not installed here: pip install 'promptmill[{kind.extra}]'")
            importlib.import_module(kind.plugin)  # makes itself known to Pillow
        self.extension, self.content_type = kind.extension, kind.content_type
        self._kind = kind
        self._resize = options.resize
        quality = options.quality or kind.quality
        self._settings = {**(kind.lossy or {}), "quality": quality} if quality else dict(kind.lossless or {})
        self._as_rendered = options.image_format == "png" and options.resize is None

    def __call__(self, png: bytes) -> bytes:
        """The image's file; a PNG that keeps its size is left as it is, byte by byte."""
        if self._as_rendered:
            return png
        file = io.BytesIO()
        with Image.open(io.BytesIO(png)) as image:
            image.load()
            texts: dict[str, str] = getattr(image, "text", {})
            said: dict[str, Any] = (
                {"pnginfo": _png_info(texts)} if self._kind.pillow == "PNG" else {"exif": self._fitting_exif(texts)}
            )
            if "xmp" in image.info and self._kind.pillow != "PNG":
                said["xmp"] = image.info["xmp"]
            _resized(image, self._resize).save(file, self._kind.pillow, **self._settings, **said)
        return file.getvalue()

    def _fitting_exif(self, texts: Mapping[str, str]) -> bytes:
        exif = _exif(texts)
        if self._kind.pillow == "JPEG" and len(exif) > _JPEG_EXIF_BYTES:
            record = json.loads(texts[PNG_JOB_KEYWORD])
            exif = _exif({PNG_JOB_KEYWORD: json.dumps({"id": record["id"]})})
        return exif


def _exif(texts: Mapping[str, str]) -> bytes:
    """The texts of a rendered PNG as EXIF."""
    tags = {}
    if PNG_JOB_KEYWORD in texts:
        tags[IMAGE_DESCRIPTION] = json.dumps(json.loads(texts[PNG_JOB_KEYWORD]))
    if "Software" in texts:
        tags[SOFTWARE] = texts["Software"]
    return exif_of(tags, texts.get(A1111_KEYWORD))


def texts_in(data: bytes) -> dict[str, str]:
    """What an image of a dataset says of its job: the record under `promptmill`, A1111's lines under `parameters`.

    For JPEG XL, `pillow_jxl` must be imported. Raises Pillow's errors for what is not an image.
    """
    with Image.open(io.BytesIO(data)) as image:
        if image.format == "PNG":
            return {name: text for name, text in image.info.items() if name in (PNG_JOB_KEYWORD, A1111_KEYWORD)}
        exif = image.getexif()
    found = {PNG_JOB_KEYWORD: str(exif[IMAGE_DESCRIPTION])} if IMAGE_DESCRIPTION in exif else {}
    comment = exif.get_ifd(EXIF_IFD).get(USER_COMMENT, b"")
    if comment.startswith(UNICODE):
        found[A1111_KEYWORD] = comment.removeprefix(UNICODE).decode("utf-16-be")
    return found


def _png_info(texts: Mapping[str, str]) -> PngInfo:
    info = PngInfo()
    for name, text in texts.items():
        info.add_itxt(name, text)
    return info


def _resized(image: Image.Image, resize: str | None) -> Image.Image:
    if resize is None:
        return image
    width, _, height = resize.partition("x")
    if height:
        return ImageOps.fit(image, (int(width), int(height)), Image.Resampling.LANCZOS)
    scale = min(1.0, int(width) / max(image.size))
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS)
