"""promptmill: prompts in through Redis, Stable Diffusion XL on JAX, images out in a bucket, each job exactly once."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from promptmill.api import RunHandle, submit
    from promptmill.finished import FinishedImage
    from promptmill.pipeline import Pipeline

    __version__: str

__all__ = ["FinishedImage", "Pipeline", "RunHandle", "__version__", "submit"]

_WHERE = {
    "FinishedImage": "promptmill.finished",
    "Pipeline": "promptmill.pipeline",
    "RunHandle": "promptmill.api",
    "submit": "promptmill.api",
}


def __getattr__(name: str) -> Any:
    """Import what the package offers when it is asked for: the command line must not wait for JAX."""
    if name == "__version__":
        from importlib.metadata import version

        return version("promptmill")
    if name not in _WHERE:
        raise AttributeError(f"module 'promptmill' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    """What tab completion shows."""
    return __all__
