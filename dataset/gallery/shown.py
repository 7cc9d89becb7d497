"""Images in a format that browsers show, where theirs is one that few of them do."""

import io

from PIL import Image

from promptmill.dataset.images import xmp_of
from promptmill.producer.image_formats import IMAGE_FORMATS, ImageFormatError, open_image

FEW_SHOW = (IMAGE_FORMATS["jxl"],)
_WEBP = {"quality": 90, "method": 2}


def shown(data: bytes, content_type: str, accept: str) -> tuple[bytes, str]:
    """The image's bytes and their type, or those of a WebP where a browser says that it takes that, and not its own.

    What cannot be read stays as it is.
    """
    few = any(kind.content_type == content_type for kind in FEW_SHOW)
    if not few or content_type in accept or "image/webp" not in accept:
        return data, content_type
    file = io.BytesIO()
    try:
        with open_image(data, Image.open) as image:
            xmp = xmp_of(image, data)
            image.convert("RGB").save(file, "WEBP", **_WEBP, **({} if xmp is None else {"xmp": xmp}))
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError, ImageFormatError):
        return data, content_type
    return file.getvalue(), "image/webp"
