"""Pixels -> the bytes of an image file, with the job inside.

A PNG carries four text chunks: `promptmill`, the job's id and fields as JSON, with what else is to be said of this
image under `notes`; `parameters`, the lines that A1111's tools read; `Software`; and an XMP packet that says that a
model made the image, unless that is turned off. Other formats (producer/image_formats.py) carry the same as EXIF.

Pillow's `save` keeps its options on the image, so an image is made, saved and dropped inside one call, in one thread.
"""

import io
import json
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from promptmill.producer.exif import A1111_KEYWORD, IMAGE_DESCRIPTION, SOFTWARE_KEYWORD, exif_of_texts
from promptmill.producer.families.samplers import SAMPLERS
from promptmill.producer.image_files import PNG_JOB_KEYWORD
from promptmill.producer.image_formats import PNG, Encoding, ImageFormatError, open_image
from promptmill.producer.job import Job, canonical_json
from promptmill.producer.marks import XMP_KEYWORD, xmp_packet

PNG_COMPRESS_LEVEL = 1  # level 6 takes four times as long for a tenth of the size

Notes = Mapping[str, Any]
"""What an image's record says beside its job, as JSON values: what a worker cut, checked, hid or marked."""

NO_NOTES: Notes = MappingProxyType({})

A1111_SCHEDULES = {"karras": "Karras", "exponential": "Exponential", "beta": "Beta", "trailing": "SGM Uniform"}
"""Our sigma schedules and spacings under A1111's names, matched as diffusers' page on schedulers matches them."""


def job_record(job: Job, notes: Notes = NO_NOTES) -> str:
    """What an image says of its job: id, fields and, where there are any, notes, as JSON."""
    return canonical_json({"id": job.id, **job.fields(), **({"notes": dict(notes)} if notes else {})})


@cache
def software() -> str:
    """This program and its version, which takes a millisecond to find out."""
    return f"promptmill {version('promptmill')}"


def encode(
    pixels: UInt8[np.ndarray, "H W 3"], job: Job, notes: Notes = NO_NOTES, *, encoding: Encoding = PNG, xmp: bool = True
) -> bytes:
    """An image file of the pixels, with the job inside; `xmp`: and the mark that a model made it.

    Raises ImageFormatError where a package is missing.
    """
    row = encoding.row
    row.load_plugin()
    texts = {
        PNG_JOB_KEYWORD: job_record(job, notes),
        A1111_KEYWORD: a1111_parameters(job),
        SOFTWARE_KEYWORD: software(),
    }
    packet = xmp_packet(texts[SOFTWARE_KEYWORD]) if xmp else None
    said = _chunks(texts, packet) if encoding.format == "png" else _exif(texts, packet, row.most_exif)
    settings = {"compress_level": PNG_COMPRESS_LEVEL} if encoding.format == "png" else row.settings(encoding.quality)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, row.pillow, **settings, **said)
    return file.getvalue()


def encode_png(pixels: UInt8[np.ndarray, "H W 3"], job: Job, notes: Notes = NO_NOTES, *, xmp: bool = True) -> bytes:
    """A PNG of the pixels, with the job in its text chunks; `xmp`: and the mark that a model made it."""
    return encode(pixels, job, notes, xmp=xmp)


def _chunks(texts: Mapping[str, str], packet: str | None) -> dict[str, Any]:
    info = PngInfo()
    info.add_itxt(PNG_JOB_KEYWORD, texts[PNG_JOB_KEYWORD])
    info.add_itxt(A1111_KEYWORD, texts[A1111_KEYWORD])
    info.add_text(SOFTWARE_KEYWORD, texts[SOFTWARE_KEYWORD])
    if packet is not None:
        info.add_itxt(XMP_KEYWORD, packet)
    return {"pnginfo": info}


def _exif(texts: Mapping[str, str], packet: str | None, most: int | None) -> dict[str, Any]:
    return {"exif": exif_of_texts(texts, most), **({} if packet is None else {"xmp": packet.encode()})}


def job_id_inside(data: bytes) -> str | None:
    """The id of the job that a whole image of ours shows, or None for anything else."""
    try:
        with open_image(data, Image.open) as image:
            image.load()
            said = image.info.get(PNG_JOB_KEYWORD) or image.getexif()[IMAGE_DESCRIPTION]
            return str(json.loads(said)["id"])
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, ImageFormatError):
        return None


def a1111_parameters(job: Job) -> str:
    """The `parameters` text as AUTOMATIC1111's web UI writes it, for the many tools that read it."""
    lines = [job.prompt]
    if job.guided and job.negative_prompt:
        lines.append(f"Negative prompt: {job.negative_prompt}")
    settings = {**_sampling(job), **_model(job), "RNG": "CPU", "Version": software()}
    lines.append(", ".join(f"{name}: {value}" for name, value in settings.items()))
    return "\n".join(lines)


def _sampling(job: Job) -> dict[str, Any]:
    schedule = A1111_SCHEDULES.get(job.sigma_schedule or "") or A1111_SCHEDULES.get(job.timestep_spacing or "")
    return {
        "Steps": job.num_inference_steps,
        "Sampler": SAMPLERS[job.sampler].a1111,
        **({"Schedule type": schedule} if schedule else {}),
        "CFG scale": _number(job.guidance_scale),
        "Seed": job.seed,
        "Size": f"{job.width}x{job.height}",
        # Both count from the last layer, A1111 with 1 for the last itself, diffusers from the one before it.
        **({"Clip skip": job.clip_skip + 2} if job.clip_skip is not None else {}),
        **({"Eta": _number(job.eta)} if job.eta is not None else {}),
    }


def _model(job: Job) -> dict[str, str]:
    refined = {} if job.refiner is None else {"Refiner": _base_name(job.refiner)}
    if job.refiner is not None and job.denoising_end is not None:
        refined["Refiner switch at"] = _number(job.denoising_end)
    return {"Model": _base_name(job.model), **refined}


def _base_name(model: str) -> str:
    return _quoted(model.partition("@")[0].rpartition("/")[2])


def _number(value: float) -> str:
    return repr(value).removesuffix(".0")


def _quoted(value: str) -> str:
    """As A1111 writes a value that would end its field."""
    return json.dumps(value, ensure_ascii=False) if any(char in value for char in ",:\n") else value
