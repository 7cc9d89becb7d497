"""Images of a run -> images of a dataset: another format, quality or size, with the job and the XMP packet inside."""

import io
from collections.abc import Mapping
from typing import Any

from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from promptmill.dataset.images import texts_of, xmp_of
from promptmill.dataset.options import PackError, PackOptions
from promptmill.producer.exif import exif_of_texts
from promptmill.producer.image_formats import Encoding, ImageFormatError, open_image
from promptmill.producer.marks import XMP_KEYWORD


class Transcoder:
    """Rendered images -> those of the dataset, as the options say. Safe to share between threads."""

    def __init__(self, options: PackOptions) -> None:
        """Raises PackError for what the format cannot do, or what is not installed."""
        try:
            self._kind = Encoding(options.image_format, options.quality).row
            self._kind.load_plugin()
        except ImageFormatError as error:
            raise PackError(str(error)) from error
        self.extension, self.content_type = self._kind.extension, self._kind.content_type
        self._resize = options.resize
        self._settings = self._kind.settings(options.quality)
        self._may_stay = options.quality is None and options.resize is None

    def __call__(self, data: bytes) -> bytes:
        """The image's file; one of the same format that keeps its size is left as it is, byte by byte."""
        if self._may_stay and data.startswith(self._kind.container.start):
            return data
        file = io.BytesIO()
        with open_image(data, Image.open) as image:
            image.load()
            texts, said = texts_of(image), dict[str, Any]()
            if self._kind.pillow == "PNG":
                said["pnginfo"] = _png_info(texts, xmp_of(image, data))
            else:
                said["exif"] = exif_of_texts(texts, self._kind.most_exif)
                if (xmp := xmp_of(image, data)) is not None:
                    said["xmp"] = xmp
            _resized(image, self._resize).save(file, self._kind.pillow, **self._settings, **said)
        return file.getvalue()


def _png_info(texts: Mapping[str, str], xmp: bytes | None) -> PngInfo:
    info = PngInfo()
    for name, text in texts.items():
        info.add_itxt(name, text)
    if xmp is not None:
        info.add_itxt(XMP_KEYWORD, xmp.decode())
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
