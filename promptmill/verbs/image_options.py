"""The flags that say how a run's images are written."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from promptmill.producer.image_formats import Encoding

F = TypeVar("F", bound=Callable[..., Any])

IMAGE_FORMAT_NAMES = ("png", "webp", "jpeg", "jxl")  # image_formats.py's, which is loaded lazily; a test compares

_OPTIONS = (
    click.option(
        "--image-format",
        type=click.Choice(IMAGE_FORMAT_NAMES),
        help="File format of the images. WebP and JPEG XL are lossless without --quality.  [as the run has them; png]",
    ),
    click.option("--quality", type=click.IntRange(1, 100), help="Quality of lossy images.  [lossless; JPEG 95]"),
)


def image_options(function: F) -> F:
    """--image-format and --quality."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def encoding_of(given: Mapping[str, Any]) -> "Encoding | None":
    """What the flags say, None where they say nothing. Raises ImageFormatError, UsageError."""
    from promptmill.producer.image_formats import Encoding

    if given["image_format"] is None:
        if given["quality"] is not None:
            raise click.UsageError("--quality needs --image-format webp, jpeg or jxl")
        return None
    return Encoding(given["image_format"], given["quality"])
