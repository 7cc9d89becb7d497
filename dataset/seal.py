"""`_SUCCESS`: written last of all, with the digests of everything in a run's output that says what the rest must be."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from promptmill.producer.errors import PromptmillError
from promptmill.producer.outputs.output import ObjectNotFound, Output

SUCCESS = "_SUCCESS"
PIECE_BYTES = 16 << 20
"""Of a large object in memory at once."""

COPIED = (".json", ".jsonl", ".md")
COPIED_BYTES = 4 << 20
"""Objects with these endings, up to this size, stand in the seal as they are."""


class SealError(PromptmillError):
    """`_SUCCESS` cannot be read."""


@dataclass(frozen=True)
class Seal:
    """Digests by object's name, and the whole text of the small ones, from which `repair` puts them back."""

    sha256: Mapping[str, str] = field(default_factory=dict)
    copies: Mapping[str, str] = field(default_factory=dict)


def write_seal(output: Output, names: Iterable[str], *, renew: bool = False) -> None:
    """Write `_SUCCESS` over the objects of these names, all of which are there; `renew`: in place of an earlier one.

    Raises OutputError.
    """
    text = seal_text(output, names)
    output.put_once(SUCCESS, text, content_type="application/json", broken=lambda existing: renew)


def seal_text(output: Output, names: Iterable[str]) -> bytes:
    """What `_SUCCESS` holds: the same bytes for the same objects. Raises OutputError."""
    digests = {name: _sha256(output, name) for name in names}
    texts = {name: output.read(name, 0, COPIED_BYTES + 1) for name in digests if name.endswith(COPIED)}
    copies = {name: text.decode() for name, text in texts.items() if len(text) <= COPIED_BYTES}
    return _text(Seal(digests, copies))


def read_seal(output: Output) -> Seal:
    """`_SUCCESS`; an empty one where a run is not packed. Raises SealError, OutputError."""
    try:
        data = output.get(SUCCESS)
        told = json.loads(data)
        seal = Seal(*({str(name): str(one) for name, one in told.get(key, {}).items()} for key in ("sha256", "copies")))
    except ObjectNotFound:
        return Seal()
    except (ValueError, TypeError, AttributeError) as error:
        raise SealError("is damaged") from error
    if data not in (_text(seal), _plain(seal)) or not seal.sha256:
        raise SealError("is not as it was written")
    return seal


def _text(seal: Seal) -> bytes:
    """With a digest of its own: else a digest in it that was changed would be laid to the object of that name."""
    return _plain(seal, {"own": hashlib.sha256(_plain(seal)).hexdigest()})


def _plain(seal: Seal, own: Mapping[str, str] = MappingProxyType({})) -> bytes:
    copies = {"copies": dict(seal.copies)} if seal.copies else {}
    sealed = {"format": "promptmill-success-1", "sha256": dict(seal.sha256), **copies, **own}
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
