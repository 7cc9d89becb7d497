"""Where one run's gallery lies, seen from another's: two runs are compared by addresses that need no server."""

import os.path
from urllib.parse import quote

from promptmill.producer.errors import PromptmillError
from promptmill.producer.outputs.output import Output


class ApartError(PromptmillError):
    """Two runs that no relative address leads between."""


def folder_beside(output: Output, other: Output) -> str:
    """`other`'s gallery as an address relative to `output`'s gallery: `../../OTHER/gallery/`. Raises ApartError."""
    if output.url == other.url:
        raise ApartError(f"{output.url} cannot be compared with itself")
    _, here, there = _parts(output, other)
    return f"{quote(os.path.relpath(f'/{there}', f'/{here}/gallery').replace(os.sep, '/'))}/gallery/"


def served_under(*outputs: Output) -> list[str]:
    """The paths under which runs are served, so that the addresses between them hold. Raises ApartError."""
    if len(outputs) == 1:
        return [outputs[0].url.rstrip("/").rpartition("/")[2]]
    common, *paths = _parts(*outputs)
    return [path.removeprefix(common).lstrip("/") for path in paths]


def _parts(first: Output, second: Output) -> tuple[str, str, str]:
    """The folder that both are in, and both, as paths of one storage; a bucket's begin with its name."""
    kinds = {output.url.partition("://")[0] if "://" in output.url else "" for output in (first, second)}
    here, there = (output.url.rpartition("://")[2].replace(os.sep, "/").rstrip("/") for output in (first, second))
    common = os.path.commonpath([f"/{here.lstrip('/')}", f"/{there.lstrip('/')}"]).lstrip("/")
    if len(kinds) > 1 or ("" not in kinds and not common):
        raise ApartError(f"{first.url} and {second.url} are not in one storage: copy one beside the other")
    return common, here.lstrip("/"), there.lstrip("/")
