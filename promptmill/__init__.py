"""promptmill: prompts in through Redis, Stable Diffusion XL on JAX, images out in a bucket, each job exactly once."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from promptmill.api import RunHandle, submit
    from promptmill.finished import FinishedImage
    from promptmill.pipeline import Pipeline

__all__ = ["FinishedImage", "Pipeline", "RunHandle", "__version__", "submit"]

__version__ = version("promptmill")

_WHERE = {
    "FinishedImage": "promptmill.finished",
    "Pipeline": "promptmill.pipeline",
    "RunHandle": "promptmill.api",
    "submit": "promptmill.api",
}


def __getattr__(name: str) -> Any:
    """What the package offers is imported when it is asked for: the command line must not wait for JAX."""
    if name not in _WHERE:
        raise AttributeError(f"module 'promptmill' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
