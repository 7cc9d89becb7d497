"""A worker's models and compiled programs: loaded, compiled and run once before a job is claimed for them."""

import enum
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence

from promptmill.producer.job import Job, Shape
from promptmill.producer.models import model_defaults, resolve_model
from promptmill.worker.checkpoints import cache_folder, find_model
from promptmill.worker.checks import Checks
from promptmill.worker.devices import is_out_of_memory
from promptmill.worker.executables import distrust, keep_compiled_programs, proven
from promptmill.worker.families import Family, LoadedModel, family_of
from promptmill.worker.program import AnyProgram, fetch
from promptmill.worker.settings import WorkerSettings

logger = logging.getLogger(__name__)


class Trouble(enum.IntEnum):
    """What has to be done before a shape can be rendered, the least first."""

    NONE = 0
    COMPILE = 1
    LOAD = 2
    EVICT = 3
    """A model has to go, and all its programs, for this one to be loaded."""


class Programs:
    """Compiled programs by shape. One thread makes them; any may ask for those that are there."""

    def __init__(self, settings: WorkerSettings, checks: Checks) -> None:
        self._settings, self._checks = settings, checks
        self._lock = threading.Lock()
        self._models: OrderedDict[str, tuple[Family, LoadedModel]] = OrderedDict()
        self._programs: OrderedDict[Shape, AnyProgram] = OrderedDict()  # the last used one last
        self._per_device: dict[Shape, int] = {}  # of shapes for which the settings' batch was too large
        keep_compiled_programs(cache_folder() / "xla")

    def __contains__(self, shape: Shape) -> bool:
        with self._lock:
            return shape in self._programs

    def trouble(self, shape: Shape) -> Trouble:
        """What it takes before a batch of this shape."""
        with self._lock:
            if shape in self._programs:
                return Trouble.NONE
            missing = [name for name in models_of(shape) if name not in self._models]
            if not missing:
                return Trouble.COMPILE
            fits = len(self._models) + len(missing) <= self._settings.models_kept
            return Trouble.LOAD if fits else Trouble.EVICT

    def at_hand(self, shape: Shape) -> AnyProgram | None:
        """The shape's program, if it is there."""
        with self._lock:
            if shape in self._programs:
                self._programs.move_to_end(shape)
                for name in models_of(shape):
                    self._models.move_to_end(name)
            return self._programs.get(shape)

    def get(self, shape: Shape) -> AnyProgram:
        """The shape's program, made now if need be. Raises ModelError."""
        return self.at_hand(shape) or self.make(shape)

    def make(self, shape: Shape) -> AnyProgram:
        """Load, compile and run once what the shape needs, in smaller batches where the device has no memory for more.

        Raises ModelError, and what XLA raises.
        """
        while True:
            try:
                program = self._compile(shape)
            except Exception as error:
                if is_out_of_memory(error):
                    if self.halve(shape):
                        continue
                elif distrust():
                    continue
                raise
            proven()
            with self._lock:
                self._programs[shape] = program
                while len(self._programs) > self._settings.shapes_kept:
                    unused, _ = self._programs.popitem(last=False)
                    logger.info("dropped the program of %s, which was not used for the longest time", unused.key)
            return program

    def halve(self, shape: Shape, program: AnyProgram | None = None) -> bool:
        """The shape's batch was too large: its next program has half as many images per device.

        `program` is the one that was too large; where another has taken its place, nothing more is to be done. False
        where one image per device is too many already.
        """
        with self._lock:
            if program is not None and self._programs.get(shape) is not program:
                return True
            images = self._per_device.get(shape, self._settings.per_device_batch)
            if images == 1:
                return False
            self._programs.pop(shape, None)
            self._per_device[shape] = images // 2
        logger.warning(
            "%s: out of memory with %d images per device; continuing with %d", shape.key, images, images // 2
        )
        return True

    def per_device(self, shape: Shape) -> int:
        """Images per device in a batch of the shape."""
        with self._lock:
            return self._per_device.get(shape, self._settings.per_device_batch)

    def _compile(self, shape: Shape) -> AnyProgram:
        names = [name for name in (shape.model, shape.refiner) if name is not None]
        loaded = [self._model(name, models_of(shape)) for name in names]
        start = time.monotonic()
        family, _ = loaded[0]
        program = compile_program(family, [model for _, model in loaded], shape, self.per_device(shape))
        compiled = time.monotonic()
        result = program.run(program.prepare([_warm_up_job(shape)]))
        self._checks.start(result.pixels)  # compiled now, and not while jobs wait; nobody reads what comes out
        fetch(result, 1)
        seconds = compiled - start, time.monotonic() - compiled
        logger.info(
            "compiled %s in %.1f s, first batch of %d in %.1f s",
            shape.key,
            seconds[0],
            program.batch,
            seconds[1],
        )
        return program

    def _model(self, name: str, needed: Sequence[str]) -> tuple[Family, LoadedModel]:
        """The model, loaded. Others go for it, once its files are known to be good, but not those `needed` with it."""
        if name not in self._models:
            folder = find_model(name)
            start = time.monotonic()
            family = family_of(folder)
            family.Model.check(folder)
            kept = max(self._settings.models_kept, len(needed))
            for dropped in [other for other in self._models if other not in needed]:
                if len(self._models) < kept:
                    break
                self._drop(dropped)
            said = self._settings
            model = family.Model.load(folder, dtype=said.dtype, vae_dtype=said.vae_dtype, quantize=said.quantize)
            with self._lock:
                self._models[name] = family, model
            logger.info("loaded %s in %.1f s", name, time.monotonic() - start)
        return self._models[name]

    def _drop(self, name: str) -> None:
        with self._lock:
            del self._models[name]
            for shape in [shape for shape in self._programs if name in models_of(shape)]:
                del self._programs[shape]


def compile_program(family: Family, models: Sequence[LoadedModel], shape: Shape, per_device_batch: int) -> AnyProgram:
    """The shape's program, for the models that it names, loaded. Raises RequestError, and what XLA raises."""
    return family.compile_shape(
        models,
        width=shape.width,
        height=shape.height,
        guided=shape.guided,
        stochastic=shape.stochastic,
        interval=shape.interval,
        cached=shape.cached,
        prompt_windows=shape.prompt_windows,
        per_device_batch=per_device_batch,
    )


def default_shape(name: str) -> Shape:
    """The shape of a job that says nothing but this model. Raises ModelNameError."""
    model = resolve_model(name)
    return Job(prompt="any", model=model, **model_defaults(model).job_fields()).shape


def models_of(shape: Shape) -> list[str]:
    """The models that a shape's program holds, each once."""
    return list(dict.fromkeys(name for name in (shape.model, shape.refiner) if name is not None))


def _warm_up_job(shape: Shape) -> Job:
    return Job(
        prompt="warm-up",
        width=shape.width,
        height=shape.height,
        # Enough that a refiner, which takes over at a fraction of the steps, has one too.
        num_inference_steps=4 if shape.refiner else 1,
        guidance_scale=5.0 if shape.guided else 1.0,
        guidance_end=0.5 if shape.interval else None,
        cache_interval=2 if shape.cached else None,
        sampler="euler_a" if shape.stochastic else "euler",
        model=shape.model,
        refiner=shape.refiner,
    )
