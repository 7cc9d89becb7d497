"""Pixels -> the bytes of an image file, with the job inside.

A PNG carries three text chunks: `promptmill`, the job's id and fields as JSON; `parameters`, the lines that A1111's
tools read; and `Software`. A new format is one function and one row in ENCODERS.

Pillow's `save` keeps its options on the image, so an image is made, saved and dropped inside one call, in one thread.
"""

import io
import json
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from producer.job import Job, canonical_json

JOB_CHUNK = "promptmill"
PNG_COMPRESS_LEVEL = 1  # level 6 takes four times as long for a tenth of the size


def job_record(job: Job) -> str:
    """What an image says of its job: id and fields, as JSON."""
    return canonical_json({"id": job.id, **job.fields()})


def encode_png(pixels: UInt8[np.ndarray, "H W 3"], job: Job) -> bytes:
    """A PNG of the pixels, with the job in its text chunks."""
    info = PngInfo()
    info.add_itxt(JOB_CHUNK, job_record(job))
    info.add_itxt("parameters", a1111_parameters(job))
    info.add_text("Software", f"promptmill {version('promptmill')}")
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=PNG_COMPRESS_LEVEL, pnginfo=info)
    return file.getvalue()


def job_id_inside(data: bytes) -> str | None:
    """The id of the job that a whole PNG of ours shows, or None for anything else."""
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.load()
            return str(json.loads(image.info[JOB_CHUNK])["id"])
    except (OSError, SyntaxError, ValueError, KeyError, TypeError):
        return None


def a1111_parameters(job: Job) -> str:
    """The `parameters` text as AUTOMATIC1111's web UI writes it, for the many tools that read it."""
    lines = [job.prompt]
    if job.guided and job.negative_prompt:
        lines.append(f"Negative prompt: {job.negative_prompt}")
    settings = {
        "Steps": job.num_inference_steps,
        "Sampler": job.sampler.capitalize(),
        "CFG scale": repr(job.guidance_scale).removesuffix(".0"),
        "Seed": job.seed,
        "Size": f"{job.width}x{job.height}",
        "Model": _quoted(job.model.partition("@")[0].rpartition("/")[2]),
        "Version": f"promptmill {version('promptmill')}",
    }
    lines.append(", ".join(f"{name}: {value}" for name, value in settings.items()))
    return "\n".join(lines)


def _quoted(value: str) -> str:
    """As A1111 writes a value that would end its field."""
    return json.dumps(value, ensure_ascii=False) if any(char in value for char in ",:\n") else value


Encoder = Callable[[UInt8[np.ndarray, "H W 3"], Job], bytes]

ENCODERS: dict[str, tuple[str, Encoder]] = {"png": ("image/png", encode_png)}
"""File name extension -> content type and encoder."""
