"""The formats of image files, one row each: of what is rendered, and of what is packed.

All images of a run are written alike, by its Encoding: a format and, where it is lossy, a quality. `run.json` and the
ledger keep it, and the names of images follow from it.
"""

import importlib
import importlib.util
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar

from promptmill.producer import image_files as files
from promptmill.producer.errors import PromptmillError

T = TypeVar("T")

Settings = Mapping[str, Any]


class ImageFormatError(PromptmillError):
    """What a format cannot do, or a package that it needs; the text says which."""


@dataclass(frozen=True)
class ImageFormat:
    """`lossless` and `lossy` are Pillow's options, None where there is no such thing; `quality` is set beside them."""

    pillow: str
    extension: str
    content_type: str
    lossless: Settings | None
    lossy: Settings | None
    container: files.Container
    plugin: str | None = None
    """A package that Pillow needs for it, and promptmill's extra of the same row."""
    extra: str = ""
    quality: int | None = None
    """Where none is asked for, and it cannot be lossless."""
    most_exif: int | None = None
    """Bytes of EXIF that there is room for."""
    of_png: tuple[float, float] = (1.0, 1.0)
    """Of a PNG's bytes, without and with a quality of about 90: `benchmarks.image_formats`."""

    def settings(self, quality: int | None) -> dict[str, Any]:
        """Pillow's options for a quality, lossless for None where it can be."""
        asked = quality or self.quality
        return {**(self.lossy or {}), "quality": asked} if asked else dict(self.lossless or {})

    def load_plugin(self) -> None:
        """Make Pillow know the format. Raises ImageFormatError where the package is not installed."""
        if self.plugin is None:
            return
        if importlib.util.find_spec(self.plugin) is None:
            raise ImageFormatError(f"{self.plugin} is not installed here: pip install 'promptmill[{self.extra}]'")
        importlib.import_module(self.plugin)


IMAGE_FORMATS = {
    "png": ImageFormat("PNG", "png", "image/png", {"compress_level": 6}, None, files.PNG),
    "webp": ImageFormat(
        *("WEBP", "webp", "image/webp"),
        {"lossless": True, "quality": 20, "method": 1},
        {"method": 4},
        files.WEBP,
        of_png=(0.78, 0.17),
    ),
    "jpeg": ImageFormat(
        *("JPEG", "jpg", "image/jpeg"),
        None,
        {"subsampling": "4:4:4", "optimize": True},
        files.JPEG,
        quality=95,
        of_png=(0.32, 0.2),
        most_exif=65533,  # a marker's segment is 65,535 bytes with its length
    ),
    "jxl": ImageFormat(
        *("JXL", "jxl", "image/jxl"),
        {"lossless": True, "effort": 3, "num_threads": 1},
        {"effort": 5, "num_threads": 1},
        files.JXL,
        plugin="pillow_jxl",
        extra="jxl",
        of_png=(0.75, 0.14),
    ),
}

EXTENSIONS = {row.extension: row for row in IMAGE_FORMATS.values()}


def format_of(data: bytes) -> ImageFormat | None:
    """The format of a file by how it begins; None for any other."""
    return next((row for row in IMAGE_FORMATS.values() if data.startswith(row.container.start)), None)


def open_image(data: bytes, opener: Callable[[BinaryIO], T]) -> T:
    """What Pillow's `Image.open`, the opener, makes of a file's bytes; most formats decode the pixels later.

    Raises Pillow's errors, ImageFormatError.
    """
    if (kind := format_of(data)) is not None:
        kind.load_plugin()
    try:
        return opener(io.BytesIO(data))
    except RuntimeError as error:  # of pillow_jxl
        raise OSError(str(error).partition(".")[0]) from error


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a run's images are written. Raises ImageFormatError for what cannot be."""

    format: str = "png"
    quality: int | None = None
    """1 to 100; None is lossless where the format can be."""

    def __post_init__(self) -> None:
        if self.format not in IMAGE_FORMATS:
            raise ImageFormatError(f"no image format {self.format!r}: expected one of {', '.join(IMAGE_FORMATS)}")
        if self.quality is None:
            return
        if self.row.lossy is None:
            raise ImageFormatError(f"{self.format} is lossless: it has no quality")
        if isinstance(self.quality, bool) or not isinstance(self.quality, int) or not 1 <= self.quality <= 100:
            raise ImageFormatError(f"quality must be a whole number from 1 to 100, got {self.quality!r}")

    @property
    def row(self) -> ImageFormat:
        return IMAGE_FORMATS[self.format]

    @property
    def extension(self) -> str:
        return self.row.extension

    @property
    def of_png(self) -> float:
        """About how many bytes a file has, of those of a PNG."""
        return self.row.of_png[self.quality is not None]

    def __str__(self) -> str:
        return self.format if self.quality is None else f"{self.format}:{self.quality}"

    @classmethod
    def parse(cls, text: str) -> "Encoding":
        """The encoding of `png` or `jpeg:90`; PNG for an empty text. Raises ImageFormatError."""
        name, _, quality = text.partition(":")
        return cls(name or "png", int(quality) if quality.isdecimal() else None)

    def to_json(self) -> dict[str, Any]:
        """As `run.json` has it."""
        return {"image_format": self.format, **({"quality": self.quality} if self.quality is not None else {})}

    @classmethod
    def of_run(cls, run: Mapping[str, Any]) -> "Encoding":
        """That of a `run.json`; PNG where an earlier version wrote it. Raises ImageFormatError."""
        return cls(run.get("image_format", "png"), run.get("quality"))


PNG = Encoding()
