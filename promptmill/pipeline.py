"""The compiled pipeline by itself, for those who want only the images: no queue, no Redis, no output.

import promptmill

pipeline = promptmill.Pipeline("stabilityai/stable-diffusion-xl-base-1.0")
pipeline("a red apple on a blue background", seed=7).save("apple.png")
"""

import json
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from PIL import Image

from promptmill.producer.errors import PromptmillError
from promptmill.producer.families.presets import over
from promptmill.producer.image_files import PNG_JOB_KEYWORD
from promptmill.producer.image_formats import Encoding
from promptmill.producer.job import Job, Shape, canonical_names
from promptmill.producer.models import DEFAULT_MODEL, model_defaults, resolve_model
from promptmill.worker.checks import Checks
from promptmill.worker.encode import encode, job_record
from promptmill.worker.program import AnyProgram, fetch
from promptmill.worker.programs import Programs
from promptmill.worker.settings import WorkerSettings


class BrokenImageError(PromptmillError):
    """The model gave no image: NaN, or one colour all over."""


class Pipeline:
    """One model on all of this host's devices. Each shape is compiled when it is first asked for, and kept.

    `model` is a folder or a hub id. Fields of a job, named as in a prompt file (`steps=20`, `sampler="dpm++_2m"`,
    `refiner=...`), are the defaults of every call; `preset` is as for `promptmill render`. `dtype` is "bfloat16" or
    "float32"; by default what suits the device. So is `vae_dtype`, by default what suits the model. `quantize`, "int8"
    or "float8", keeps the UNet's large kernels in one byte per number. Raises ModelNameError, PresetError, JobError;
    the first call that needs the weights may raise ModelError.
    """

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        *,
        preset: str | None = None,
        dtype: str | None = None,
        quantize: str = "none",
        vae_dtype: str | None = None,
        per_device_batch: int = 1,
        **fields: Any,
    ) -> None:
        self.model = resolve_model(model)
        of_model = {**model_defaults(self.model, preset).job_fields(), "model": self.model}
        self._defaults = self._over(of_model, fields)
        settings = WorkerSettings(
            dtype=dtype, vae_dtype=vae_dtype, quantize=quantize, per_device_batch=per_device_batch
        )
        self._programs = Programs(settings, Checks({}))
        Job(prompt="any", **self._defaults)  # a wrong field is said now

    @overload
    def __call__(self, prompt: str, **fields: Any) -> Image.Image: ...
    @overload
    def __call__(self, prompt: Sequence[str], **fields: Any) -> list[Image.Image]: ...
    def __call__(
        self, prompt: str | Sequence[str], *, seed: int | Sequence[int] = 0, **fields: Any
    ) -> Image.Image | list[Image.Image]:
        """Return a PIL image (RGB) for a prompt, or a list of them for a list, whose seeds are `seed`, `seed + 1`, ...

        Other fields are a job's, by the names of a prompt file. Each image's `info` holds its job. Raises JobError,
        RequestError, BrokenImageError.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        seeds = range(seed, seed + len(prompts)) if isinstance(seed, int) else seed
        said = self._over(self._defaults, fields)
        jobs = [Job(**{**said, "prompt": text, "seed": own}) for text, own in zip(prompts, seeds, strict=True)]
        images = list(self.render(jobs))
        return images[0] if isinstance(prompt, str) else images

    def render(self, jobs: Iterable[Job]) -> Iterator[Image.Image]:
        """The image of each job, in order, batch by batch of one shape."""
        shape: Shape | None = None
        batch: list[Job] = []
        for job in jobs:
            if batch and (job.shape != shape or len(batch) == self._programs.get(batch[0].shape).batch):
                yield from _render(self._programs.get(batch[0].shape), batch)
                batch = []
            shape = job.shape
            batch.append(job)
        if batch:
            yield from _render(self._programs.get(batch[0].shape), batch)

    def save_all(
        self,
        images: Iterable[Image.Image],
        folder: str | Path,
        *,
        image_format: str = "png",
        quality: int | None = None,
    ) -> list[Path]:
        """Write images of a Pipeline to `folder/00000.png` and so on, each with its job inside; return the paths.

        They are the files that a worker writes: A1111's tools and `promptmill` read their settings. `image_format` is
        png, webp, jpeg or jxl, `quality` 1 to 100 for lossy ones. Raises ImageFormatError; ValueError for an image
        that has lost its record, as Pillow's resize and crop drop it.
        """
        encoding = Encoding(image_format, quality)
        Path(folder).mkdir(parents=True, exist_ok=True)
        paths = []
        for number, image in enumerate(images):
            paths.append(Path(folder) / f"{number:05d}.{encoding.extension}")
            paths[-1].write_bytes(_encoded(image, encoding))
        return paths

    def _over(self, defaults: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
        said = canonical_names(fields)
        if isinstance(said.get("refiner"), str):
            said["refiner"] = resolve_model(said["refiner"])
        return over(defaults, said)


def _encoded(image: Image.Image, encoding: Encoding) -> bytes:
    if PNG_JOB_KEYWORD not in image.info:
        raise ValueError("the image has no record of its job: save it as it came from the Pipeline")
    fields = {
        name: value for name, value in json.loads(image.info[PNG_JOB_KEYWORD]).items() if name not in ("id", "notes")
    }
    return encode(np.asarray(image), Job.from_fields(fields), encoding=encoding)


def _render(program: AnyProgram, jobs: Sequence[Job]) -> Iterator[Image.Image]:
    prepared = program.prepare(jobs)
    rendered = fetch(program.run(prepared), len(jobs))
    for job, pixels, finite, plain, cut in zip(jobs, *rendered, prepared.cuts, strict=True):
        if not finite or plain:
            raise BrokenImageError(f"seed {job.seed}: the model gave {'one colour' if finite else 'NaN'}: {job.prompt}")
        for name, text in cut.items():
            warnings.warn(f"{name} is too long, its end was truncated: {text!r}", stacklevel=4)
        image = Image.fromarray(pixels)
        image.info[PNG_JOB_KEYWORD] = job_record(job)
        yield image
