"""Where shards are written before they are in the output."""

from contextlib import AbstractContextManager
from pathlib import Path

from promptmill.producer.outputs.output import RESERVED, Output
from promptmill.producer.scratch import PREFIX, Scratch, scratch_folder


def scratch_beside(output: Output, name: str) -> AbstractContextManager[Scratch]:
    """A temporary folder: on the disk of an output that is a folder, under a name that no listing shows, so that a file
    need not be copied to be there; else among the temporary files."""
    folder = None if "://" in output.url else Path(output.url)
    return scratch_folder(name, folder, prefix=PREFIX if folder is None else RESERVED)
