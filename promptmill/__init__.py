"""promptmill: prompts in through Redis, Stable Diffusion XL on JAX, images out in a bucket, each job exactly once.

What is listed here is the public face; whatever else can be imported may move. All errors are PromptmillError.
"""

from importlib import import_module

# Not typing's, and nothing else that Python has not loaded: under `-m` a user's `typing.py` would be found first.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

    from promptmill.api import RunHandle, submit
    from promptmill.finished import FinishedImage
    from promptmill.pipeline import BrokenImageError, Pipeline
    from promptmill.producer.errors import (
        BrokerError,
        ExpansionError,
        JobError,
        LedgerError,
        ModelNameError,
        PlanError,
        PromptFileError,
        PromptFileErrors,
        PromptmillError,
    )
    from promptmill.producer.families.presets import PresetError
    from promptmill.producer.job import Job
    from promptmill.producer.outputs.output import OutputError
    from promptmill.producer.prompts.expand import Expansion
    from promptmill.worker.errors import ModelError, RequestError

    __version__: str

__all__ = [
    "BrokenImageError",
    "BrokerError",
    "Expansion",
    "ExpansionError",
    "FinishedImage",
    "Job",
    "JobError",
    "LedgerError",
    "ModelError",
    "ModelNameError",
    "OutputError",
    "Pipeline",
    "PlanError",
    "PresetError",
    "PromptFileError",
    "PromptFileErrors",
    "PromptmillError",
    "RequestError",
    "RunHandle",
    "__version__",
    "submit",
]

_ELSEWHERE = {
    "BrokenImageError": "pipeline",
    "Expansion": "producer.prompts.expand",
    "FinishedImage": "finished",
    "Job": "producer.job",
    "ModelError": "worker.errors",
    "OutputError": "producer.outputs.output",
    "Pipeline": "pipeline",
    "PresetError": "producer.families.presets",
    "RequestError": "worker.errors",
    "RunHandle": "api",
    "submit": "api",
}
"""Where a name is at home; the others are errors, in producer.errors."""


def __getattr__(name: str) -> "Any":
    """Import what the package offers when it is asked for: the command line must not wait for JAX."""
    if name == "__version__":
        from importlib.metadata import version

        return version("promptmill")
    if name not in __all__:
        raise AttributeError(f"module 'promptmill' has no attribute {name!r}")
    return getattr(import_module(f"promptmill.{_ELSEWHERE.get(name, 'producer.errors')}"), name)


def __dir__() -> list[str]:
    """What tab completion shows."""
    return __all__
