"""Pixels -> the bytes of an image file, with the job inside.

A PNG carries four text chunks: `promptmill`, the job's id and fields as JSON, with what else is to be said of this
image under `notes`; `parameters`, the lines that A1111's tools read; `Software`; and an XMP packet that says that a
model made the image, unless that is turned off. A new format is one function and one row in ENCODERS.

Pillow's `save` keeps its options on the image, so an image is made, saved and dropped inside one call, in one thread.
"""

import io
import json
from collections.abc import Mapping
from importlib.metadata import version
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from promptmill.producer.families.samplers import SAMPLERS
from promptmill.producer.job import Job, canonical_json
from promptmill.producer.layout import PNG_JOB_KEYWORD
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


def encode_png(pixels: UInt8[np.ndarray, "H W 3"], job: Job, notes: Notes = NO_NOTES, *, xmp: bool = True) -> bytes:
    """A PNG of the pixels, with the job in its text chunks; `xmp`: and the mark that a model made it."""
    info = PngInfo()
    info.add_itxt(PNG_JOB_KEYWORD, job_record(job, notes))
    info.add_itxt("parameters", a1111_parameters(job))
    info.add_text("Software", f"promptmill {version('promptmill')}")
    if xmp:
        info.add_itxt(XMP_KEYWORD, xmp_packet(f"promptmill {version('promptmill')}"))
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=PNG_COMPRESS_LEVEL, pnginfo=info)
    return file.getvalue()


def job_id_inside(data: bytes) -> str | None:
    """The id of the job that a whole PNG of ours shows, or None for anything else."""
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.load()
            return str(json.loads(image.info[PNG_JOB_KEYWORD])["id"])
    except (OSError, SyntaxError, ValueError, KeyError, TypeError):
        return None


def a1111_parameters(job: Job) -> str:
    """The `parameters` text as AUTOMATIC1111's web UI writes it, for the many tools that read it."""
    lines = [job.prompt]
    if job.guided and job.negative_prompt:
        lines.append(f"Negative prompt: {job.negative_prompt}")
    settings = {**_sampling(job), **_model(job), "RNG": "CPU", "Version": f"promptmill {version('promptmill')}"}
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


class Encoder(Protocol):
    """Pixels (uint8, H W 3) -> the bytes of a file."""

    def __call__(self, pixels: UInt8[np.ndarray, "H W 3"], job: Job, notes: Notes, *, xmp: bool) -> bytes: ...


ENCODERS: dict[str, tuple[str, Encoder]] = {"png": ("image/png", encode_png)}
"""File name extension -> content type and encoder."""
