"""What a run will take before it begins: work by a count of operations, time by a measurement that is named.

The work is that of SDXL's networks, in 10^12 operations (two a multiply-add). At 1024x1024 a call of the UNet is 6.76:
6.23 of convolutions and dense layers grow with the pixels, 0.52 of attention with their square; at 512x512 it is 1.59.
The VAE's decoder is 10.5, the text encoders together 0.11 a window.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from promptmill.producer.families.samplers import SAMPLERS
from promptmill.producer.image_formats import PNG, Encoding
from promptmill.producer.job import Job, Shape
from promptmill.producer.models import POCKET, TINY_RANDOM
from promptmill.producer.plan import Plan
from promptmill.producer.plan_lines import MOST_KINDS
from promptmill.producer.presence import Present
from promptmill.producer.queue.workers import WorkerReport
from promptmill.producer.words import count

MEGAPIXEL = 1024 * 1024
PNG_BYTES_A_PIXEL = 1.8  # compressed at level 1; a photograph of 1024x1024 comes to 1.9 MB
SHALLOW_SHARE = 0.015  # of the UNet's operations at 1024x1024: what DeepCache computes at every evaluation
REFINER_STRENGTH = 0.3  # diffusers' default for image to image with the refiner

STEPS_PUBLISHED = 20
"""Published rates are of images of 1024x1024 pixels, in 20 guided steps of Euler's sampler."""


class Work(NamedTuple):
    """What one image asks of the devices: `calls` of the UNet, a guided step being two."""

    shape: Shape
    calls: float

    @property
    def tera(self) -> float:
        """10^12 operations."""
        size = self.shape.width * self.shape.height / MEGAPIXEL
        unet = 6.23 * size + 0.52 * size**2
        vae = 9.9 * size + 0.6 * size**2
        return self.calls * unet + vae + 0.11 * self.shape.prompt_windows


def work_of(job: Job) -> Work:
    """What a job asks for, by its settings."""
    schedule = job.timesteps or job.sigmas
    steps: float = SAMPLERS[job.sampler].evaluations_in(len(schedule) if schedule else job.num_inference_steps)
    if job.cache_interval is not None:
        whole = -(-steps // job.cache_interval)
        steps = whole + SHALLOW_SHARE * (steps - whole)
    if job.refiner is not None and job.denoising_end is None:
        steps *= 1 + (REFINER_STRENGTH if job.refiner_strength is None else job.refiner_strength)
    return Work(job.shape, steps * (2 if job.guided else 1))


PUBLISHED_TERA = Work(Shape("any", 1024, 1024, guided=True), 2 * STEPS_PUBLISHED).tera


@dataclass(frozen=True, slots=True)
class Device:
    """A kind of device: 10^12 operations a second that it has been seen to do, and who saw it."""

    tera_per_s: float
    source: str
    pocket_calls_per_s: float | None = None  # of the pocket model's UNet at 64x64, its other networks included
    pocket_source: str = ""

    def seconds(self, work: Work) -> float | None:
        """For one image, or None where nothing is known of the model."""
        if work.shape.model == TINY_RANDOM:
            return None
        if work.shape.model == POCKET:
            size = work.shape.width * work.shape.height / 64**2
            return work.calls * size / self.pocket_calls_per_s if self.pocket_calls_per_s else None
        return work.tera / self.tera_per_s

    def basis(self, works: Iterable[Work]) -> str:
        """Who saw it."""
        pocket = {work.shape.model == POCKET for work in works}
        return "; ".join([self.source] * (False in pocket) + [self.pocket_source] * (True in pocket))


def _published(images_per_s: float, who: str) -> Device:
    rate = f"{images_per_s:g} images/s per device at 1024x1024, {STEPS_PUBLISHED} guided steps"
    text = f"{who}: {rate}; scaled by the work"
    return Device(images_per_s * PUBLISHED_TERA, text)


DEVICES: Mapping[str, Device] = {
    "v5e": _published(0.438, "Google's SDXL in JAX on TPU v5e, MLPerf Inference 4.1"),
    "v6e": _published(1.36, "Google's SDXL in JAX on TPU v6e"),
    "h100": _published(2.04, "NVIDIA's SDXL in TensorRT and FP8 on H100, which is faster than bfloat16"),
    "h200": _published(2.18, "NVIDIA's SDXL in TensorRT and FP8 on H200, which is faster than bfloat16"),
    "cpu": Device(
        1.59 / 11.7,
        "docs/performance.md: a call of the UNet at 512x512 takes 11.7 s on two cores; scaled by the work",
        pocket_calls_per_s=9.3 * 20,
        pocket_source="README.md: 9.3 images/s of the pocket model in ten guided steps, on two cores",
    ),
}
"""What --device takes. A new one is a row; `cpu` is a host of two cores."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """How long a run takes on some devices, and what that costs. `basis` names the measurement."""

    device: str
    devices: int
    images_per_s: float
    seconds: float
    device_hours: float
    cost: tuple[float, float]
    basis: str


@dataclass(frozen=True, slots=True)
class Measured:
    """A rate that somebody saw, of all `devices` together."""

    device: str
    devices: int
    images_per_s: float
    basis: str


def live_rate(reports: Iterable[WorkerReport]) -> Measured | None:
    """What the workers there are do now, or None where none renders."""
    busy = [report for report in reports if report.images_per_s > 0 and report.devices > 0]
    if not busy:
        return None
    rate, devices = sum(report.images_per_s for report in busy), sum(report.devices for report in busy)
    platforms = ", ".join(sorted({report.platform for report in busy}))
    basis = f"{count(len(busy), 'worker')} at this moment: {rate:.3g} images/s on {count(devices, 'device')}"
    return Measured(platforms, devices, rate, basis)


def given_rate(images_per_s: float, devices: int | None) -> Measured:
    """What --images-per-s says of one device."""
    count = devices or 1
    return Measured("yours", count, images_per_s * count, f"--images-per-s {images_per_s:g}, of one device")


def work_to_do(plan: Plan, present: Present) -> Counter[Work]:
    """The images that are still to be rendered, by what they ask for."""
    works: Counter[Work] = Counter()
    known: dict[str, Work] = {}  # by what a job says of its own beside prompt and seed, which cost nothing
    for job in plan:
        if not job.first or present.indexes[job.index]:
            continue
        said = json.loads(job.own_json)
        del said["prompt"], said["seed"]
        key = repr(said)
        if key not in known:
            if len(known) >= MOST_KINDS:
                known.clear()
            known[key] = work_of(plan.whole(job))
        works[known[key]] += 1
    return works


def estimates(
    works: Mapping[Work, int],
    *,
    measured: Measured | None,
    device: str | None,
    devices: int | None,
    cost_per_hour: tuple[float, float],
) -> list[Estimate]:
    """One estimate where there is a measurement or a device was named, else one for each kind of device known."""
    if measured is not None:
        images = sum(works.values())
        return [_estimate(measured, images / measured.images_per_s, cost_per_hour)]
    found = []
    for name in [device] if device else list(DEVICES):
        seconds = [_seconds(DEVICES[name], work, count) for work, count in works.items()]
        known = [each for each in seconds if each is not None]
        if known and len(known) == len(seconds):
            basis = DEVICES[name].basis(works)
            found.append(_of_table(name, devices or 1, sum(works.values()), sum(known), basis, cost_per_hour))
    return found


def _seconds(device: Device, work: Work, count: int) -> float | None:
    each = device.seconds(work)
    return None if each is None else each * count


def _of_table(name: str, devices: int, images: int, device_s: float, basis: str, cost: tuple[float, float]) -> Estimate:
    rate = images / device_s * devices
    return _estimate(Measured(name, devices, rate, basis), device_s / devices, cost)


def _estimate(measured: Measured, seconds: float, cost: tuple[float, float]) -> Estimate:
    hours = seconds * measured.devices / 3600
    low, high = cost
    return Estimate(
        measured.device,
        measured.devices,
        measured.images_per_s,
        seconds,
        hours,
        (hours * low, hours * high),
        measured.basis,
    )


def image_bytes(works: Mapping[Work, int], encoding: Encoding = PNG) -> int:
    """Of the images as files: somewhat more than they are likely to take."""
    pixels = sum(count * work.shape.width * work.shape.height for work, count in works.items())
    return round(pixels * PNG_BYTES_A_PIXEL * encoding.of_png)


def describe(
    plan: Plan, present: Present, works: Mapping[Work, int], found: Sequence[Estimate], stored: int
) -> dict[str, Any]:
    """The whole of a dry run, as JSON has it. `stored` is the plan's size in the output, in bytes."""
    return {
        "rows": plan.rows,
        "rejected": plan.rejected,
        "jobs": plan.jobs,
        "images": plan.images,
        "duplicates": plan.duplicates,
        "truncated": plan.cut,
        "present": present.images,
        "to_render": sum(works.values()),
        "shapes": {shape.key: count for shape, count in plan.shapes.items()},
        "compiles": len({work.shape for work in works}),
        "image_bytes": image_bytes(works, plan.encoding),
        "plan_bytes": stored,
        "estimates": [{name: getattr(estimate, name) for name in Estimate.__slots__} for estimate in found],
        "rejects": [str(error) for error in plan.rejects.first],
    }
