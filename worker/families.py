"""From what a model folder says it is to the code that renders it.

Which families there are: `producer/families/families.py`. The code of one is `worker/NAME/program.py`.
"""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from promptmill.producer.families.families import PIPELINES, family_of_pipeline
from promptmill.worker.checkpoint.json_config import read_json, unexpected
from promptmill.worker.program import AnyProgram
from promptmill.worker.quantization import UNQUANTIZED


class LoadedModel(Protocol):
    """A checkpoint of the family, its weights on this host's devices."""

    @staticmethod
    def check(folder: Path) -> None:
        """Find out whether `load` would take the folder, without reading weights. Raises ConfigError, WeightsError."""

    @classmethod
    def load(
        cls, folder: Path, *, dtype: Any | None = None, vae_dtype: Any | None = None, quantize: str = UNQUANTIZED
    ) -> "LoadedModel":
        """Read a diffusers folder onto this host's devices; `quantize` is a format of worker/quantization.py.

        Raises ConfigError, WeightsError.
        """


class Family(Protocol):
    """What `worker/NAME/program.py` has."""

    @property
    def Model(self) -> type[LoadedModel]: ...

    def compile_shape(self, models: Sequence[Any], **shape: Any) -> AnyProgram:
        """One program of the family's loaded models: the job's own, and its refiner if it has one."""


def family_of(folder: Path) -> Family:
    """The code for a diffusers folder, by its model_index.json. Raises ConfigError."""
    path = folder / "model_index.json"
    pipeline = read_json(path).get("_class_name")
    family = family_of_pipeline(pipeline)
    if family is None:
        raise unexpected(path, "_class_name", pipeline, PIPELINES)
    module: Any = importlib.import_module(f"promptmill.worker.{family}.program")
    code: Family = module
    return code
