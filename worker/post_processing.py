"""What happens to an image between the device and its file: hidden where a check flagged it, marked if asked for.

    treated = treat(pixels, findings, settings)
    treated.failure or encode(treated.pixels, job, {**notes, **treated.notes})

Whatever changes pixels is told in the notes, since the job id is a hash of the job alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFilter

from promptmill.worker import watermark
from promptmill.worker.checks import Findings
from promptmill.worker.settings import WorkerSettings

Pixels = UInt8[np.ndarray, "H W 3"]

BLUR_SHARE = 1 / 16  # radius of the shorter side: shapes and colours are left, no face and no skin


@dataclass(frozen=True)
class Treated:
    """Pixels to be written and what to say of them; or why nothing is to be written."""

    pixels: Pixels
    notes: dict[str, Any]
    failure: str | None = None


def treat(pixels: Pixels, findings: Findings, settings: WorkerSettings) -> Treated:
    """The image as it may be written. Pure; slow enough (blur, watermark: tens of ms) for a pool's thread."""
    flagged = [name for name, verdict in findings.items() if verdict.flagged]
    if flagged and settings.on_unsafe == "fail":
        return Treated(pixels, {}, f"the image was flagged by {', '.join(flagged)}")
    notes: dict[str, Any] = {}
    if findings:
        notes["safety"] = {
            "flagged": bool(flagged),
            "checks": {name: {"flagged": verdict.flagged, **verdict.details} for name, verdict in findings.items()},
        }
    if flagged:
        pixels = HIDE[settings.on_unsafe](pixels)
        notes["safety"]["shown"] = settings.on_unsafe
    if "watermark" in settings.layers:
        pixels, notes["watermark"] = _marked(pixels)
    return Treated(pixels, notes)


def _marked(pixels: Pixels) -> tuple[Pixels, str]:
    if pixels.shape[0] * pixels.shape[1] < watermark.MIN_PIXELS:
        return pixels, "none: smaller than 256x256"  # as diffusers: nothing could read it
    return watermark.mark(pixels), watermark.NAME


def _blur(pixels: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(min(pixels.shape[:2]) * BLUR_SHARE)))


HIDE: dict[str, Callable[[Pixels], Pixels]] = {"black": np.zeros_like, "blur": _blur, "keep": lambda pixels: pixels}
"""What is shown of a flagged image, by the name in --on-unsafe; `fail` shows nothing."""
