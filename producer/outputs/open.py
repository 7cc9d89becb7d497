"""From a URL to an output: a row a kind of storage."""

from collections.abc import Callable, Mapping

from promptmill.producer.outputs.folder import open_file_url, open_folder
from promptmill.producer.outputs.gcs import open_bucket
from promptmill.producer.outputs.output import Output, OutputUrlError

# How many uploads may be in the air at once. The client's own pool is 10, and closes connections above it.
DEFAULT_CONNECTIONS = 64

SCHEMES: Mapping[str, Callable[[str, int], Output]] = {
    "": open_folder,
    "file": open_file_url,
    "gs": open_bucket,
}
"""A URL's scheme -> what opens the rest of it, with so many connections."""


def open_output(url: str, *, connections: int = DEFAULT_CONNECTIONS) -> Output:
    """The output at `url`: `gs://bucket/prefix`, `file:///folder`, or the path of a folder (`~` is expanded).

    Raises:
        OutputUrlError: no such kind of storage, or a URL that says too little.
        OutputError: no Google credentials.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
        head, colon, _ = url.partition(":")
        if colon and head and head in SCHEMES:
            raise OutputUrlError(f"output {url!r}: expected two slashes after the colon, as in gs://bucket/prefix")
    if scheme not in SCHEMES:
        known = ", ".join(f"{name}://" for name in SCHEMES if name)
        raise OutputUrlError(f"output {url!r}: there is no storage {scheme}://; known are {known} and a folder's path")
    return SCHEMES[scheme](rest, connections)
