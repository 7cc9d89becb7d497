"""`_SUCCESS`: written last of all, with the digests of everything in a run's output that says what the rest must be."""

import hashlib
import json
from collections.abc import Iterable, Mapping

from promptmill.producer.errors import PromptmillError
from promptmill.producer.outputs.output import ObjectNotFound, Output

SUCCESS = "_SUCCESS"
PIECE_BYTES = 16 << 20
"""Of a large object in memory at once."""


class SealError(PromptmillError):
    """`_SUCCESS` cannot be read."""


def write_seal(output: Output, names: Iterable[str]) -> None:
    """Write `_SUCCESS` over the objects of these names, all of which are there. Raises OutputError."""
    digests = {name: _sha256(output, name) for name in names}
    output.put_once(SUCCESS, _text(digests), content_type="application/json")


def read_seal(output: Output) -> dict[str, str]:
    """The digests in `_SUCCESS` by object's name; none where a run is not packed. Raises SealError, OutputError."""
    try:
        data = output.get(SUCCESS)
        sealed = {str(name): str(digest) for name, digest in json.loads(data)["sha256"].items()}
    except ObjectNotFound:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SealError("is damaged") from error
    if _text(sealed) != data:
        raise SealError("is not as it was written")
    return sealed


def _text(digests: Mapping[str, str]) -> bytes:
    sealed = {"format": "promptmill-success-1", "sha256": digests}
    return f"{json.dumps(sealed, indent=1, sort_keys=True)}\n".encode()


def sha256_of(output: Output, name: str) -> str | None:
    """The digest of an object's bytes, or None where there is no object."""
    try:
        return _sha256(output, name)
    except ObjectNotFound:
        return None


def _sha256(output: Output, name: str) -> str:
    digest, at = hashlib.sha256(), 0
    while part := output.read(name, at, PIECE_BYTES):
        digest.update(part)
        at += len(part)
    return digest.hexdigest()
