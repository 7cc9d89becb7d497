"""What rendering costs on this host, one setting after the other: `promptmill bench` prints it.

A model is loaded once; each shape and batch is compiled as a worker compiles it, and rendered as a worker renders it:
the next batch is prepared while the device computes.
"""

import contextlib
import dataclasses
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from promptmill.producer.job import Job
from promptmill.worker.ceilings import Ceiling, ceiling_of
from promptmill.worker.checkpoints import cache_folder, find_model
from promptmill.worker.devices import Devices, is_out_of_memory
from promptmill.worker.encode import encode_png
from promptmill.worker.executables import keep_compiled_programs
from promptmill.worker.families import Family, LoadedModel, family_of
from promptmill.worker.flops import count_flops
from promptmill.worker.program import AnyProgram, Prepared, fetch
from promptmill.worker.programs import compile_program, models_of


@dataclass(frozen=True)
class Measured:
    """One setting. Seconds are wall time, but for the host's, which is of its own thread."""

    model: str
    width: int
    height: int
    steps: int
    guided: bool
    sampler: str
    per_device_batch: int
    devices: int
    device: str
    platform: str
    dtype: str
    quantize: str
    vae_dtype: str | None
    """None is the model's own."""
    compile_s: float
    """From the loaded weights to a program, with what XLA kept of earlier processes."""
    first_image_s: float
    """From the loaded weights to the first image on the host: compiling and the first batch."""
    latency_s: float
    """Of a batch, from prepared inputs to pixels on the host: the median."""
    images_per_s: float
    """Of batches one after the other, each prepared while the one before computes."""
    tera_per_image: float
    """10^12 operations, two per multiply-add."""
    share: float
    """Of the ceiling, while the device had a batch."""
    host_ms: float
    """Of the host's own time per image: tokens, noise and tables, and the PNG."""

    @property
    def images_per_s_per_device(self) -> float:
        return self.images_per_s / self.devices


@dataclass(frozen=True)
class Refused:
    """A setting that the device has no memory for."""

    model: str
    width: int
    height: int
    steps: int
    per_device_batch: int
    reason: str


@dataclass(frozen=True)
class _Loaded:
    family: Family
    models: list[LoadedModel]


class Bench:
    """Measures settings on all devices of this host."""

    def __init__(
        self, *, dtype: str | None, vae_dtype: str | None, quantize: str, repeats: int, profile: Path | None = None
    ) -> None:
        self.devices = Devices.of()
        self.ceiling: Ceiling = ceiling_of(self.devices.mesh.devices.flat[0])
        self.load_s: dict[str, float] = {}
        """Of each model, from files to weights on the devices."""
        self.quantize = quantize
        self.vae_dtype = vae_dtype
        self._dtype, self._repeats, self._profile = dtype, repeats, profile
        self._loaded: tuple[list[str], _Loaded] | None = None
        keep_compiled_programs(cache_folder() / "xla")

    @property
    def dtype(self) -> str:
        return self._dtype or ("float32" if self.devices.platform == "cpu" else "bfloat16")

    def measure(self, job: Job, per_device_batch: int) -> Measured | Refused:
        """Render batches of the job, in other seeds. Raises ModelError, RequestError, and what XLA raises."""
        try:
            return self._measure(job, per_device_batch)
        except jax.errors.JaxRuntimeError as error:
            if not is_out_of_memory(error):
                raise
            size = job.width, job.height, job.num_inference_steps
            return Refused(job.model, *size, per_device_batch, "out of memory")

    def _measure(self, job: Job, per_device_batch: int) -> Measured:
        loaded = self._load(models_of(job.shape))
        started = time.perf_counter()
        program = compile_program(loaded.family, loaded.models, job.shape, per_device_batch)
        compiled = time.perf_counter()
        jobs = _jobs(job, program.batch)
        _render(program, program.prepare(jobs))
        first = time.perf_counter()
        prepared, host_s = _prepared_and_encoded(program, jobs)
        latency_s = statistics.median(_timed(program, prepared) for _ in range(self._repeats))
        images_per_s = self._rate(program, jobs)
        with self._profiled():
            _render(program, prepared)
        flops = sum(count_flops(jaxpr, trips=trips) for jaxpr, trips in program.traced(prepared))
        ceiling = self.ceiling.tera_per_s * 1e12 * (1 if self.ceiling.shared else self.devices.count)
        return Measured(
            model=job.model,
            width=job.width,
            height=job.height,
            steps=job.num_inference_steps,
            guided=job.guided,
            sampler=job.sampler,
            per_device_batch=per_device_batch,
            devices=self.devices.count,
            device=str(self.devices.mesh.devices.flat[0].device_kind),
            platform=self.devices.platform,
            dtype=self.dtype,
            quantize=self.quantize,
            vae_dtype=self.vae_dtype,
            compile_s=compiled - started,
            first_image_s=first - started,
            latency_s=latency_s,
            images_per_s=images_per_s,
            tera_per_image=flops / program.batch / 1e12,
            share=flops / latency_s / ceiling,
            host_ms=host_s / program.batch * 1e3,
        )

    def _load(self, names: list[str]) -> _Loaded:
        """One setting's models; those of the one before are dropped first."""
        if self._loaded is None or self._loaded[0] != names:
            self._loaded = None
            self._loaded = names, _Loaded(*self._read(names))
        return self._loaded[1]

    def _read(self, names: Sequence[str]) -> tuple[Family, list[LoadedModel]]:
        folders = {name: find_model(name) for name in names}
        models = []
        for name, folder in folders.items():
            started = time.perf_counter()
            types: dict[str, Any] = {"dtype": self._dtype, "vae_dtype": self.vae_dtype, "quantize": self.quantize}
            models.append(family_of(folder).Model.load(folder, **types))
            self.load_s[name] = time.perf_counter() - started
        return family_of(folders[names[0]]), models

    def _rate(self, program: AnyProgram, jobs: Sequence[Job]) -> float:
        """Images per second with two batches in flight, as a worker has them."""
        started = time.perf_counter()
        running = program.run(program.prepare(jobs))
        for _ in range(self._repeats - 1):
            following = program.run(program.prepare(jobs))
            fetch(running, len(jobs))
            running = following
        fetch(running, len(jobs))
        return self._repeats * len(jobs) / (time.perf_counter() - started)

    @contextlib.contextmanager
    def _profiled(self) -> Iterator[None]:
        if self._profile is None:
            yield
            return
        with jax.profiler.trace(str(self._profile)):
            yield


def _jobs(job: Job, count: int) -> list[Job]:
    """The job in other words and seeds, as a run has them: no two are one text."""
    return [dataclasses.replace(job, seed=index, prompt=f"{job.prompt}, {index}") for index in range(count)]


def _render(program: AnyProgram, prepared: Prepared[Any]) -> Any:
    return fetch(program.run(prepared), program.batch)


def _timed(program: AnyProgram, prepared: Prepared[Any]) -> float:
    started = time.perf_counter()
    _render(program, prepared)
    return time.perf_counter() - started


def _prepared_and_encoded(program: AnyProgram, jobs: Sequence[Job]) -> tuple[Prepared[Any], float]:
    """Seconds of this thread that a batch costs beside the device."""
    others = [dataclasses.replace(job, prompt=f"{job.prompt} again") for job in jobs]
    started = time.thread_time()
    prepared = program.prepare(others)
    seconds = time.thread_time() - started
    pixels = _render(program, prepared).pixels
    started = time.thread_time()
    for image, job in zip(pixels, jobs, strict=True):
        encode_png(image, job)
    return prepared, seconds + time.thread_time() - started
