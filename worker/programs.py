"""A worker's models and compiled programs: loaded, compiled and run once before a job is claimed for them."""

import logging
import os
import time
from collections import OrderedDict
from pathlib import Path

import jax

from producer.job import Job, Shape
from producer.models import model_defaults, resolve_model
from worker.sdxl.checkpoints import cache_folder, find_model
from worker.sdxl.program import Model, Program, fetch
from worker.settings import WorkerSettings

logger = logging.getLogger(__name__)


class Programs:
    """Compiled programs by shape. Used by one thread."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._models: OrderedDict[str, Model] = OrderedDict()
        self._programs: dict[Shape, Program] = {}
        keep_compiled_programs(cache_folder() / "xla")

    def __contains__(self, shape: Shape) -> bool:
        return shape in self._programs

    def get(self, shape: Shape) -> Program:
        """The program of a shape; what is not there yet is loaded, compiled and run once. Raises ModelError."""
        if shape not in self._programs:
            self._programs[shape] = self._compile(shape)
        if shape.model in self._models:
            self._models.move_to_end(shape.model)
        return self._programs[shape]

    def preload(self, name: str) -> Program:
        """The program of a model's own size, with guidance. Raises ModelError, ModelNameError."""
        model = resolve_model(name)
        defaults = model_defaults(model)
        return self.get(Shape(model, defaults.width, defaults.height, "euler", guided=defaults.guidance_scale > 1))

    def _compile(self, shape: Shape) -> Program:
        model = self._model(shape.model)
        start = time.monotonic()
        program = model.compile(
            width=shape.width,
            height=shape.height,
            sampler=shape.sampler,
            guided=shape.guided,
            per_device_batch=self._settings.per_device_batch,
        )
        compiled = time.monotonic()
        fetch(program.run(program.prepare([_warm_up_job(shape)])), 1)
        seconds = compiled - start, time.monotonic() - compiled
        logger.info(
            "compiled %s in %.1f s, first batch of %d in %.1f s",
            shape.key,
            seconds[0],
            program.batch,
            seconds[1],
        )
        return program

    def _model(self, name: str) -> Model:
        if name not in self._models:
            while len(self._models) >= self._settings.models_kept:
                dropped, _ = self._models.popitem(last=False)
                self._programs = {shape: p for shape, p in self._programs.items() if shape.model != dropped}
            start = time.monotonic()
            self._models[name] = Model.load(find_model(name), dtype=self._settings.dtype)
            logger.info("loaded %s in %.1f s", name, time.monotonic() - start)
        return self._models[name]


def _warm_up_job(shape: Shape) -> Job:
    return Job(
        prompt="warm-up",
        width=shape.width,
        height=shape.height,
        num_inference_steps=1,
        guidance_scale=5.0 if shape.guided else 1.0,
        sampler=shape.sampler,
        model=shape.model,
    )


def keep_compiled_programs(folder: Path) -> None:
    """Lets XLA keep its programs in `folder` over restarts, if nobody else can write there: what it holds is run.

    JAX_COMPILATION_CACHE_DIR, where it is set, names the folder instead.
    """
    folder = Path(os.environ.get("JAX_COMPILATION_CACHE_DIR") or folder)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        logger.warning("compiled programs are not kept: %s", error)
        return
    if folder.stat().st_mode & 0o022:
        logger.warning("compiled programs are not kept: others may write in %s", folder)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
